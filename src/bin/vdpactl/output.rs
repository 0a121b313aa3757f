//! What goes to standard output and standard error.

use std::io::{self, BufWriter, ErrorKind, IsTerminal, Stderr, Stdout, Write};

use serde::Serialize;

use crate::paint::Paint;

/// The version of the objects that `--json` prints.
const SCHEMA: u32 = 1;

/// Where a command prints. A reader that went away is no failure: what is left to say goes nowhere.
pub(crate) struct Output {
    json: bool,
    paint: Paint,
    stdout: BufWriter<Stdout>,
}

#[derive(Serialize)]
struct Object<'a, T> {
    schema: u32,
    #[serde(flatten)]
    body: &'a T,
}

impl Output {
    /// Standard output, for objects (`json`) or for people.
    pub(crate) fn new(json: bool) -> Self {
        let stdout = io::stdout();
        Self {
            json,
            paint: Paint::new(!json && stdout.is_terminal()),
            stdout: BufWriter::new(stdout),
        }
    }

    /// Whether objects are wanted, and text would only be in the way.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The colours of standard output.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }

    /// Prints `text` for people, and a line end; nothing with `--json`.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        unless_gone(writeln!(self.stdout, "{text}"))
    }

    /// Prints the object with its schema, with `--json`.
    pub(crate) fn object(&mut self, body: &impl Serialize) -> io::Result<()> {
        if !self.json {
            return Ok(());
        }
        let object = Object {
            schema: SCHEMA,
            body,
        };
        let line = serde_json::to_string(&object)?;
        unless_gone(writeln!(self.stdout, "{line}"))
    }

    /// Prints bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        unless_gone(self.stdout.write_all(bytes))
    }

    /// What was said so far becomes visible.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        unless_gone(self.stdout.flush())
    }

    /// Tells standard error what is wrong. What was said before is seen before.
    pub(crate) fn complain(&mut self, what: &str) {
        self.tell("error:", what);
    }

    /// Tells standard error what is done all the same, and may not be what was meant.
    pub(crate) fn warn(&mut self, what: &str) {
        self.tell("warning:", what);
    }

    fn tell(&mut self, level: &str, what: &str) {
        // When neither can be written to, there is nobody left to tell.
        let _ = self.flush();
        let stderr: Stderr = io::stderr();
        let paint = Paint::new(stderr.is_terminal());
        let _ = writeln!(stderr.lock(), "{} {what}", paint.bad(level));
    }
}

fn unless_gone(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
