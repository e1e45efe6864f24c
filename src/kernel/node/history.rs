//! This node's part in keeping the history bounded: the rules it declares.

use super::Node;
use crate::kernel::entry::{Declare, Event};
use crate::kernel::rules::RULES;

impl Node {
    /// Declares the rules that this version knows, once.
    pub(super) fn declare_rules(&mut self) {
        let members = self.clock.members();
        let mine = self.me.peer();
        if self.may_write() && members.contains(&mine) && members.declared(&mine) < RULES {
            self.events.push(Event::Declare(Declare { rules: RULES }));
        }
    }

    /// Whether a member has declared rules that this version does not know: it then decides nothing.
    pub(super) fn is_behind_rules(&self) -> bool {
        self.clock.members().highest_rules() > RULES
    }
}
