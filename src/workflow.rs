//! A workflow file's text into tags, triggers, labels and jobs. Pure; nothing else reads YAML.
