//! A guest that does what it is told, line by line.

use std::time::Duration;

use crate::machine::{Kernel, Machine, Running};
use crate::monitor::Monitor;
use crate::transcript::Step;

/// How long one guest may take for all of its steps.
const DEADLINE: Duration = Duration::from_secs(480);

/// Does what it is told until it is told to exit. What is started with `&` goes on. Before each line is how long it is: on a
/// busy machine its console loses some of it now and then, and such a line is asked for again once its end has come.
const TALK: &str = r#"
exec 3</dev/ttyS1
tell ready
while read -r length line <&3; do
    if [ ${#line} = "$length" ]; then tell heard; step told eval "$line"; else tell again; fi
done
"#;

/// How often a line is said before it is given up.
const TIMES: usize = 5;

/// A machine for a guest whose devices are elsewhere: its memory is shared.
///
/// * `parts`: of `tests/lab/topology`
pub(crate) fn machine(parts: &[&str]) -> Machine {
    let plain = Machine::plain(Kernel::Stock, parts);
    plain.part("shared-memory".to_owned()).within(DEADLINE)
}

/// A guest with a shell.
pub(crate) struct Guest {
    running: Running,
}

impl Guest {
    /// Starts it, and waits until it can be told something.
    #[track_caller]
    pub(crate) fn start(machine: Machine) -> Self {
        let mut guest = Self::arriving(machine);
        guest.is_up();
        guest
    }

    /// Starts what runs a guest that comes from elsewhere: `machine` says so. It can be told something once it is here.
    #[track_caller]
    pub(crate) fn arriving(machine: Machine) -> Self {
        Self {
            running: machine.start(TALK),
        }
    }

    /// Waits until it can be told something, as after `reboot`.
    #[track_caller]
    pub(crate) fn is_up(&mut self) {
        self.running.wait_for("ready");
    }

    /// Has its shell run a line, and waits for its end.
    #[track_caller]
    pub(crate) fn runs(&mut self, line: &str) -> Step {
        self.begins(line);
        let mut said = String::new();
        loop {
            said.push_str(&self.running.line());
            let step = said.split_once("@step ");
            if let Some((step, _)) = step.and_then(|(_, from)| Step::parse(from)) {
                return step;
            }
        }
    }

    /// Has its shell run a line that ends well; what it has printed, without white space around it.
    #[track_caller]
    pub(crate) fn does(&mut self, line: &str) -> String {
        let step = self.runs(line);
        assert_eq!(step.code, 0, "`{line}`: {step:#?}");
        step.out.trim().to_owned()
    }

    /// Has its shell run a line that need not end.
    #[track_caller]
    pub(crate) fn begins(&mut self, line: &str) {
        for _ in 0..TIMES {
            self.is_told(line);
            if self.has_heard() {
                return;
            }
            println!("not whole: `{line}`");
        }
        panic!("`{line}` does not arrive whole");
    }

    /// Has its shell run a line that ends it, as `reboot -f`: what it says to that may go down with it.
    #[track_caller]
    pub(crate) fn is_told(&mut self, line: &str) {
        let plain = line.is_ascii() && line.trim() == line && !line.contains('\n');
        assert!(
            plain,
            "one line of ASCII, without white space around it: {line:?}"
        );
        self.running.say(&format!("{} {line}", line.len()));
    }

    /// Waits for what it says to a line.
    #[track_caller]
    fn has_heard(&mut self) -> bool {
        loop {
            match self.running.line().trim_end() {
                "@tell heard" => return true,
                "@tell again" => return false,
                _ => {}
            }
        }
    }

    /// Says a line to what it runs, which waits for it.
    #[track_caller]
    pub(crate) fn hears(&mut self, line: &str) {
        self.running.say(line);
    }

    /// The next object that what it runs prints.
    #[track_caller]
    pub(crate) fn object(&mut self) -> serde_json::Value {
        self.running.object()
    }

    /// QEMU's monitor; one at a time.
    #[track_caller]
    pub(crate) fn monitor(&self) -> Monitor {
        self.running.monitor()
    }

    /// Kills QEMU, and waits until it is gone.
    #[track_caller]
    pub(crate) fn kill(self) {
        self.running.kill();
    }

    /// Ends it as it should end.
    #[track_caller]
    pub(crate) fn ends(mut self) {
        self.is_told("exit 0");
        self.running.finish();
    }
}
