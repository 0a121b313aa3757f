//! How a statement ends.

/// The end of a statement that did not pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The device, or what drives it, does not keep the statement: what was seen.
    Failed(String),
    /// It does not apply to the device: why.
    Skipped(String),
}

/// What a step of a statement returns.
pub type Checked<T = ()> = Result<T, Stop>;

impl Stop {
    /// A failure, with what was seen.
    pub fn failed(seen: impl Into<String>) -> Self {
        Self::Failed(seen.into())
    }

    /// A skip, with its reason.
    pub fn skipped(reason: impl Into<String>) -> Self {
        Self::Skipped(reason.into())
    }

    /// The same, with what it was about in front.
    #[must_use]
    pub fn about(self, what: impl std::fmt::Display) -> Self {
        match self {
            Self::Failed(seen) => Self::Failed(format!("{what}: {seen}")),
            Self::Skipped(reason) => Self::Skipped(reason),
        }
    }
}

/// A call that should have succeeded. That a device has room for few mappings is no fault of it, where they are too many.
impl From<vdpa_core::Error> for Stop {
    fn from(error: vdpa_core::Error) -> Self {
        match error {
            vdpa_core::Error::DmaEntries {
                there, more, max, ..
            } if there + more > max as usize => {
                let needed = there + more;
                let s = if max == 1 { "" } else { "s" };
                Self::Skipped(format!(
                    "it takes {max} mapping{s}, the judge needs {needed}"
                ))
            }
            error => Self::Failed(format!("a call was refused: {error}")),
        }
    }
}

impl From<vdpa_mem::MemError> for Stop {
    fn from(error: vdpa_mem::MemError) -> Self {
        Self::Failed(format!("memory was refused: {error}"))
    }
}

/// Fails with what was seen unless the condition holds.
macro_rules! ensure {
    ($cond:expr, $($seen:tt)+) => {
        if !$cond {
            return Err($crate::Stop::failed(format!($($seen)+)));
        }
    };
}

/// Fails with what was seen.
macro_rules! fail {
    ($($seen:tt)+) => {
        return Err($crate::Stop::failed(format!($($seen)+)))
    };
}

/// Ends a statement that does not apply, with the reason.
macro_rules! skip {
    ($($reason:tt)+) => {
        return Err($crate::Stop::skipped(format!($($reason)+)))
    };
}

pub(crate) use {ensure, fail, skip};
