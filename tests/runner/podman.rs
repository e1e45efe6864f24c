//! A container engine of a test's own: real Podman with runc, in a directory that goes with it.

use std::iter;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use runmesh::kernel::id::Digest;
use runmesh::runner::{Limits, Settings};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::rig::{processes, wait};

/// The image that is there.
pub(crate) const IMAGE: &str = "localhost/lab:1";
/// Where it may fetch from, in its directory.
const REGISTRIES: &str = "registries.conf";
/// What its shell scripts may use.
const TOOLS: &str = "sh cat ls echo sleep env id mkdir rm grep tail head test true setsid nohup tar dd seq wc kill ps nc \
                     wget httpd tr find sed touch chmod cp nslookup yes base64 dirname sort mktemp \
                     cut printf sha256sum";

pub(crate) struct Podman {
    scratch: TempDir,
    service: Child,
    /// How its users' networks end, for those are shared by all Podmans of a user.
    marks: Mutex<Vec<String>>,
}

impl Podman {
    /// Starts it, with [`IMAGE`]: a busybox.
    pub(crate) async fn start() -> Self {
        let scratch = tempfile::Builder::new().prefix("pod").tempdir().unwrap();
        let tree = scratch.path().join("tree");
        std::fs::create_dir_all(tree.join("bin")).unwrap();
        for folder in ["tmp", "etc", "proc", "sys", "dev", "www"] {
            std::fs::create_dir(tree.join(folder)).unwrap();
        }
        std::fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        std::fs::write(tree.join("www/hello"), "from-service\n").unwrap();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
        std::fs::copy(busybox.expect("these tests need busybox"), tree.join("bin/busybox")).unwrap();
        for tool in TOOLS.split_ascii_whitespace() {
            std::os::unix::fs::symlink("busybox", tree.join("bin").join(tool)).unwrap();
        }
        // What act and the stub of GitHub's runner ask for by name, with its libraries.
        for file in iter::once("/bin/bash".to_owned()).chain(libraries("/bin/bash")).chain(libraries("/bin/busybox")) {
            let target = tree.join(&file[1..]);
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::copy(&file, target).unwrap();
        }
        let archive = scratch.path().join("image.tar");
        run(Command::new("tar").arg("-C").arg(&tree).arg("-cf").arg(&archive).arg("."));
        std::fs::remove_dir_all(&tree).unwrap();
        run(podman(scratch.path()).arg("import").arg(&archive).arg(IMAGE));
        let service = serve(scratch.path());
        let engine = Self { scratch, service, marks: Mutex::default() };
        engine.listens().await;
        engine
    }

    async fn listens(&self) {
        let socket = self.socket();
        wait("the engine listens", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
    }

    /// Ends what answers at the socket; containers go on.
    pub(crate) fn fall_silent(&mut self) {
        self.service.kill().unwrap();
        self.service.wait().unwrap();
    }

    /// And lets it answer again.
    pub(crate) async fn answer_again(&mut self) {
        // Left by the one that was killed; a new one does not take it over.
        let _ = std::fs::remove_file(self.socket());
        self.service = serve(self.scratch.path());
        self.listens().await;
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.scratch.path().join("socket")
    }

    /// Settings that use it.
    pub(crate) fn set(&self, settings: &mut Settings) {
        std::fs::create_dir_all(&settings.work_root).unwrap();
        let work = std::fs::canonicalize(&settings.work_root).unwrap();
        let node = Digest::of(&[work.as_os_str().as_encoded_bytes()]).to_string();
        self.marks.lock().unwrap().push(format!("-rm{}", &node[..12]));
        settings.engine = Some(self.socket());
        settings.image = IMAGE.to_owned();
        settings.limits = Limits { memory: Some(256 << 20), millicpus: Some(900), pids: Some(100), ulimit: 1024 };
    }

    /// The same files as another image, with a change to what it does.
    pub(crate) fn import(&self, image: &str, change: &str) {
        let archive = self.scratch.path().join("image.tar");
        run(podman(self.scratch.path()).args(["import", "--change", change]).arg(archive).arg(image));
    }

    /// Writes an image in the layout that registries serve (OCI image layout) and forgets it.
    pub(crate) fn take_out(&self, image: &str, into: &Path) {
        self.say(&["save", "--quiet", "--format", "oci-dir", "--output", into.to_str().unwrap(), image]);
        self.say(&["rmi", image]);
    }

    /// Lets it fetch from a registry of this host without TLS.
    pub(crate) async fn trust(&mut self, registry: &str) {
        let text = format!("[[registry]]\nlocation = \"{registry}\"\ninsecure = true\n");
        std::fs::write(self.scratch.path().join(REGISTRIES), text).unwrap();
        self.fall_silent();
        self.answer_again().await;
    }

    /// What it says to these words.
    pub(crate) fn say(&self, words: &[&str]) -> String {
        run(podman(self.scratch.path()).args(words))
    }

    /// Everything of it but the image: containers, volumes, networks.
    pub(crate) fn left(&self) -> Vec<String> {
        let names = |words: &[&str]| self.say(words).lines().map(str::to_owned).collect::<Vec<_>>();
        let mut left = names(&["ps", "--all", "--format", "{{.Names}}"]);
        left.extend(names(&["volume", "ls", "--format", "{{.Name}}"]));
        let marks = self.marks.lock().unwrap();
        let ours = |name: &String| marks.iter().any(|mark| name.contains(mark));
        left.extend(names(&["network", "ls", "--format", "{{.Name}}"]).into_iter().filter(ours));
        left
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = podman(self.scratch.path()).args(["rm", "--all", "--force", "--volumes", "--time", "0"]).output();
        // Gone already is what was wanted.
        let _ = self.service.kill();
        let _ = self.service.wait();
        // What watches over commands in containers stays for minutes.
        for left in processes(self.scratch.path().to_str().unwrap()) {
            if let Some(pid) = Pid::from_raw(left.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let scratch = self.scratch.path().to_str().unwrap().to_owned();
        for mount in below.filter(|path| path.starts_with(&scratch)).collect::<Vec<_>>().into_iter().rev() {
            let _ = Command::new("umount").args(["--lazy", mount]).output();
        }
    }
}

fn serve(scratch: &Path) -> Child {
    let socket = format!("unix://{}", scratch.join("socket").display());
    let mut service = podman(scratch);
    service.args(["system", "service", "--time=0", &socket]);
    let service = service.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    service.expect("these tests need podman and runc")
}

fn podman(scratch: &Path) -> Command {
    let mut command = Command::new("podman");
    command.arg("--root").arg(scratch.join("storage")).arg("--runroot").arg(scratch.join("run"));
    command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs"]);
    let registries = scratch.join(REGISTRIES);
    if registries.exists() {
        command.env("CONTAINERS_REGISTRIES_CONF", registries);
    }
    command
}

fn libraries(program: &str) -> Vec<String> {
    // It fails where there is nothing to list.
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let paths = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(str::to_owned).collect()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
