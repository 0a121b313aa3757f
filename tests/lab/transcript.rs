//! What a guest's script has printed, step by step: `guest/steps.sh` is the other side.
#![allow(dead_code, reason = "the lab and interop each use a part of it")]

use serde_json::Value;

/// All that was printed.
#[derive(Debug)]
pub(crate) struct Transcript {
    steps: Vec<Step>,
    /// As it came.
    whole: String,
}

/// One command of the script.
#[derive(Debug)]
pub(crate) struct Step {
    name: String,
    /// What it printed.
    pub(crate) out: String,
    /// What it printed on standard error.
    pub(crate) errors: String,
    /// Its exit code.
    pub(crate) code: i32,
}

impl Transcript {
    /// Takes apart what was printed. A step that did not end is none.
    pub(crate) fn parse(whole: String) -> Self {
        let mut steps = Vec::new();
        let mut rest = whole.as_str();
        while let Some((_, from)) = rest.split_once("@step ") {
            let Some((step, after)) = Step::parse(from) else {
                break;
            };
            steps.push(step);
            rest = after;
        }
        Self { steps, whole }
    }

    /// The step of this name.
    #[track_caller]
    pub(crate) fn step(&self, name: &str) -> &Step {
        let found = self.steps.iter().find(|step| step.name == name);
        found.unwrap_or_else(|| panic!("no step `{name}` in:\n{}", self.whole))
    }

    /// What the step of this name printed, without white space around it. It ended well.
    #[track_caller]
    pub(crate) fn said(&self, name: &str) -> &str {
        self.step(name).well().out.trim()
    }
}

impl Step {
    /// The first step of what stands after a `@step `, and what comes after it; `None` while it has not ended.
    pub(crate) fn parse(from: &str) -> Option<(Self, &str)> {
        let (name, from) = from.split_once('\n')?;
        let (out, from) = from.split_once("\n@errors\n")?;
        let (errors, from) = from.split_once("\n@end ")?;
        let (code, after) = from.split_once('\n')?;
        let step = Self {
            name: name.to_owned(),
            out: out.to_owned(),
            errors: errors.to_owned(),
            code: code.parse().ok()?,
        };
        Some((step, after))
    }

    /// It ended with 0.
    #[track_caller]
    pub(crate) fn well(&self) -> &Self {
        assert_eq!(self.code, 0, "{self:#?}");
        self
    }

    /// It ended with `code`, and its output has all of these in it.
    #[track_caller]
    pub(crate) fn ends_with(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        for word in words {
            let said = self.out.contains(word) || self.errors.contains(word);
            assert!(said, "{word:?} is not in {self:#?}");
        }
    }

    /// The one object that it printed.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.out.trim()).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}
