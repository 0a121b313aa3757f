//! A guest that does what it is told, line by line.

use std::time::Duration;

use crate::machine::{Kernel, Machine, Running};
use crate::monitor::Monitor;
use crate::transcript::Step;

/// How long one guest may take for all of its steps.
const DEADLINE: Duration = Duration::from_secs(480);

/// Does what it is told until it is told to exit. What is started with `&` goes on.
const TALK: &str = r#"
exec 3</dev/ttyS1
tell ready
while read -r line <&3; do step told eval "$line"; done
"#;

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

    /// Has its shell run a line that does not end, as `reboot -f`.
    #[track_caller]
    pub(crate) fn begins(&mut self, line: &str) {
        assert!(!line.contains('\n'), "a line is one: {line:?}");
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
        self.begins("exit 0");
        self.running.finish();
    }
}
