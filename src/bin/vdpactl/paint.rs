//! Colours, on a terminal that wants them.

use std::env;
use std::fmt::Display;

use anstyle::{AnsiColor, Style};

/// Paints words, or leaves them as they are.
#[derive(Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// Colours for a `terminal`, unless `NO_COLOR` is set or the terminal is dumb.
    pub(crate) fn new(terminal: bool) -> Self {
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            on: terminal && !unwanted,
        }
    }

    /// The heading of a part.
    pub(crate) fn heading(self, text: impl Display) -> String {
        self.with(Style::new().bold(), text)
    }

    /// What is less important.
    pub(crate) fn faint(self, text: impl Display) -> String {
        self.with(Style::new().dimmed(), text)
    }

    /// A name to find again.
    pub(crate) fn name(self, text: impl Display) -> String {
        self.with(AnsiColor::Cyan.on_default(), text)
    }

    /// A figure worth looking at.
    pub(crate) fn figure(self, text: impl Display) -> String {
        self.with(AnsiColor::Yellow.on_default().bold(), text)
    }

    /// All is well.
    pub(crate) fn good(self, text: impl Display) -> String {
        self.with(AnsiColor::Green.on_default().bold(), text)
    }

    /// Something is wrong.
    pub(crate) fn bad(self, text: impl Display) -> String {
        self.with(AnsiColor::Red.on_default().bold(), text)
    }

    /// [`good`](Self::good) or [`bad`](Self::bad).
    pub(crate) fn verdict(self, well: bool, text: impl Display) -> String {
        if well {
            self.good(text)
        } else {
            self.bad(text)
        }
    }

    fn with(self, style: Style, text: impl Display) -> String {
        if self.on {
            format!("{style}{text}{style:#}")
        } else {
            text.to_string()
        }
    }
}
