//! What the guides say is what the programs take: the lines of docs/vmm.md for QEMU, and the domains of docs/libvirt.
#![cfg(feature = "cli")]

mod serving;
mod vdpactl;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serving::Served;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Whether a program is there; if not, says so, with the package that has it.
fn is_there(program: &str, package: &str, test: &str) -> bool {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !there {
        println!("SKIP guides::{test}: not installed: {program} (Debian: {package})");
    }
    there
}

/// The blocks of shell lines of the guide, as command lines, each a list of words. What stands in several lines is one.
fn blocks() -> Vec<Vec<Vec<String>>> {
    let guide = fs::read_to_string(format!("{ROOT}/docs/vmm.md")).unwrap();
    let blocks = guide.split("```sh\n").skip(1);
    blocks
        .map(|block| {
            let (block, _) = block.split_once("```").unwrap();
            let block = block.replace("\\\n", " ");
            let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
            block.lines().map(words).collect()
        })
        .collect()
}

/// A guest that does not run.
struct Qemu(Child);

impl Qemu {
    /// QEMU by these words, with nothing around it.
    fn start(words: &[String]) -> Self {
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["-S", "-display", "none", "-nodefaults", "-qmp", "stdio"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Waits for its greeting, which comes once all devices are there, or for its end.
    fn greet(&mut self) {
        let mut greeting = String::new();
        let stdout = self.0.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut greeting).unwrap();
    }

    /// Ends it. What it had to say is its errors.
    fn end(mut self) -> String {
        let pid = Pid::from_raw(self.0.id().try_into().unwrap());
        // One that is gone already has said why.
        let _gone = kill(pid, Signal::SIGTERM);
        let mut said = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // After a failure; else it has ended.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

#[test]
fn qemu_takes_the_lines_of_the_guide() {
    if !is_there(
        "qemu-system-x86_64",
        "qemu-system-x86",
        "qemu_takes_the_lines_of_the_guide",
    ) {
        return;
    }
    let mut tried = 0;
    for block in blocks() {
        let of = |first: &str| block.iter().find(|words| words[0] == first);
        let (Some(serve), Some(qemu)) = (of("vdpactl"), of("qemu-system-x86_64")) else {
            continue;
        };
        let home = tempfile::tempdir().unwrap();
        let here = |words: &[String]| -> Vec<String> {
            let home = home.path().to_str().unwrap();
            words
                .iter()
                .map(|word| word.replace("/run/vdpa", home))
                .collect()
        };
        let devices = serve.iter().filter(|word| *word == "--vhost-user").count();
        let client = serve.iter().any(|word| word == "--client");
        assert_eq!(serve[1], "serve");
        let served = Served::start(here(&serve[2..]));
        for _ in 0..devices {
            served.expect(if client { "connecting" } else { "listening" });
        }
        if client {
            served.expect("waiting");
        }
        let mut qemu = Qemu::start(&here(qemu));
        for _ in 0..devices {
            served.expect("connected");
        }
        qemu.greet();
        let said = qemu.end();
        // The last as docs/vmm.md says: of a network device QEMU has the configuration itself.
        let noise = [
            ": info: ",
            "terminating on signal",
            "supports VHOST_USER_PROTOCOL_F_CONFIG",
        ];
        let trouble = |line: &&str| !noise.iter().any(|noise| line.contains(noise));
        let said: Vec<_> = said.lines().filter(trouble).collect();
        for _ in 0..devices {
            served.expect("disconnected");
        }
        assert_eq!(said, [""; 0], "{serve:?}");
        if client {
            // Its socket is gone or going.
            served.signal(Signal::SIGKILL);
        } else {
            served.stop(devices);
        }
        tried += 1;
    }
    assert!(tried >= 5, "{tried} blocks for QEMU");
}

#[test]
fn the_domains_are_valid_for_libvirt() {
    let test = "the_domains_are_valid_for_libvirt";
    let (validate, lint) = ("virt-xml-validate", "xmllint");
    if !is_there(validate, "libvirt-clients", test) || !is_there(lint, "libxml2-utils", test) {
        return;
    }
    let mut tried = 0;
    for entry in fs::read_dir(format!("{ROOT}/docs/libvirt")).unwrap() {
        let path = entry.unwrap().path();
        let judged = Command::new(validate)
            .arg(&path)
            .arg("domain")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&judged.stderr);
        assert!(judged.status.success(), "{}: {said}", path.display());
        assert!(
            is_served(&path),
            "{}: no device of another process",
            path.display()
        );
        tried += 1;
    }
    assert!(tried >= 2, "{tried} domains");
}

/// Whether memory is shared with what is served, without which no back end works.
fn is_served(domain: &Path) -> bool {
    let text = fs::read_to_string(domain).unwrap();
    text.contains("<access mode='shared'/>") && text.contains("type='vhostuser'")
}

#[test]
fn device_strings_of_the_guide_can_be_served() {
    let mut tried = 0;
    for words in blocks().into_iter().flatten() {
        if words[0] != "vdpactl" {
            continue;
        }
        // Together: some are on the same wire.
        let registry = vdpa::registry();
        let specs = words.iter().filter(|word| word.starts_with("sim:"));
        let opened: Vec<_> = specs.map(|spec| registry.open(spec).expect(spec)).collect();
        tried += opened.len();
    }
    assert!(tried >= 7, "{tried} device strings");
}
