//! What was done to a device last.

use std::collections::VecDeque;

use super::plan::Phase;

/// How many interruptions are told.
const TOLD: usize = 3;

/// The last interruptions of a phase.
#[derive(Default)]
pub(crate) struct History {
    last: VecDeque<(u64, String)>,
}

impl History {
    /// Interruption `number`, counted from 1, is about to come.
    pub(crate) fn add(&mut self, number: u64, what: String) {
        if self.last.len() == TOLD {
            self.last.pop_front();
        }
        self.last.push_back((number, what));
    }

    /// Where the soak is: for whoever reads what went wrong.
    pub(crate) fn place(&self, phase: &Phase) -> String {
        let (number, configuration) = (phase.number, phase.configuration);
        let phase = format!("in phase {number} ({configuration})");
        let mut newest_first = self.last.iter().rev();
        let Some((number, what)) = newest_first.next() else {
            return phase;
        };
        let before: Vec<&str> = newest_first.map(|(_, what)| what.as_str()).collect();
        match before.is_empty() {
            true => format!("after interruption {number} ({what}), {phase}"),
            false => {
                let before = before.join(", ");
                format!("after interruption {number} ({what}; before it {before}), {phase}")
            }
        }
    }
}
