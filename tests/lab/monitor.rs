//! QEMU's monitor: QMP over a socket, one command and its answer at a time.
#![allow(dead_code, reason = "the lab and interop each use a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

/// How long the monitor may take for an answer or an event.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a monitor.
pub(crate) struct Monitor {
    lines: BufReader<UnixStream>,
    /// Events that came while something else was waited for.
    events: Vec<Value>,
}

impl Monitor {
    /// Connects to a guest's monitor.
    #[track_caller]
    pub(crate) fn connect(at: &Path) -> Self {
        let stream = UnixStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut monitor = Self {
            lines: BufReader::new(stream),
            events: Vec::new(),
        };
        let greeting = monitor.line();
        assert!(greeting["QMP"].is_object(), "{greeting}");
        monitor.command("qmp_capabilities", &json!({}));
        monitor
    }

    /// Has a command carried out, and answers what it returns.
    #[track_caller]
    pub(crate) fn command(&mut self, name: &str, arguments: &Value) -> Value {
        let command = json!({ "execute": name, "arguments": arguments });
        writeln!(self.lines.get_mut(), "{command}").unwrap();
        loop {
            let mut line = self.line();
            if line.get("event").is_some() {
                self.events.push(line);
                continue;
            }
            assert!(line.get("return").is_some(), "{command}: {line}");
            return line["return"].take();
        }
    }

    /// Has a function report, to the bus, an error that was not corrected: a completion that did not come in time.
    #[track_caller]
    pub(crate) fn report_an_error(&mut self, id: &str) {
        // QMP has no command for it.
        let line = format!("pcie_aer_inject_error {id} COMP_TIME");
        let said = self.command("human-monitor-command", &json!({ "command-line": line }));
        let said = said.as_str().unwrap_or_default();
        assert!(said.starts_with("OK"), "{line}: {said}");
    }

    /// Asks the guest to let go of a device.
    #[track_caller]
    pub(crate) fn take_out(&mut self, id: &str) {
        self.command("device_del", &json!({ "id": id }));
    }

    /// Waits until a device is gone.
    #[track_caller]
    pub(crate) fn is_out(&mut self, id: &str) {
        self.event(|event| event["event"] == "DEVICE_DELETED" && event["data"]["device"] == id);
    }

    /// Waits for an event that is so; it is taken out, and what came before it is kept.
    #[track_caller]
    pub(crate) fn event(&mut self, is: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(at) = self.events.iter().position(&is) {
                return self.events.remove(at);
            }
            let line = self.line();
            self.events.push(line);
        }
    }

    #[track_caller]
    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }
}
