//! What the kernel tells of a device, in one message.
//!
//! ```text
//!   add@/devices/virtual/mtty/mtty/83b8f4f2-…\0ACTION=add\0DEVPATH=/devices/virtual/…\0SUBSYSTEM=mdev\0SEQNUM=4711\0
//! ```

use uuid::Uuid;

use crate::uuid;

/// The most bytes of a message: those of its keys and values, and those of its header.
///
/// # Spec
/// Linux, `include/linux/kobject.h`: UEVENT_BUFFER_SIZE.
pub(crate) const MOST: usize = 2048 + 4096;

/// A message.
///
/// # Spec
/// Linux, `lib/kobject_uevent.c`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uevent {
    /// What happened: `add`, `remove`, `change`, `bind` and others.
    pub action: String,
    /// Whom it happened to: a path below `/sys`.
    pub path: String,
    /// Keys and values, in their order.
    pub values: Vec<(String, String)>,
}

/// A change of what mediated devices there are, or can be.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change {
    /// A device was made.
    Made {
        /// Its name.
        uuid: Uuid,
        /// The device that it is in.
        parent: String,
    },
    /// A device was removed.
    Removed {
        /// Its name.
        uuid: Uuid,
        /// The device that it was in.
        parent: String,
    },
    /// A device makes mediated ones from now on.
    ParentCame {
        /// Its name.
        parent: String,
    },
    /// A device makes none any more.
    ParentWent {
        /// Its name.
        parent: String,
    },
}

/// Why something is no message of the kernel's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It is no text.
    #[error("an event is no text")]
    NoText,
    /// It does not end with its last value.
    #[error("an event is cut short")]
    Cut,
    /// It does not begin with what happened and to whom.
    #[error("an event has no header")]
    Header,
    /// Something in it is no key with a value.
    #[error("an event has something that is no key with a value")]
    Value,
    /// What its header says and what its keys say are two things.
    #[error("an event says two things")]
    Contradiction,
}

impl Uevent {
    /// Reads a message.
    ///
    /// # Errors
    /// [`Malformed`]; nothing is guessed.
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let text = str::from_utf8(message).map_err(|_| Malformed::NoText)?;
        let text = text.strip_suffix('\0').ok_or(Malformed::Cut)?;
        let mut parts = text.split('\0');
        let header = parts.next().and_then(|header| header.split_once('@'));
        let (action, path) = header.ok_or(Malformed::Header)?;
        let is_action = !action.is_empty() && action.bytes().all(|byte| byte.is_ascii_lowercase());
        if !is_action || !path.starts_with('/') {
            return Err(Malformed::Header);
        }
        let pair = |part: &str| {
            let (key, value) = part.split_once('=')?;
            (!key.is_empty()).then(|| (key.to_owned(), value.to_owned()))
        };
        let values: Option<Vec<_>> = parts.map(pair).collect();
        let event = Self {
            action: action.to_owned(),
            path: path.to_owned(),
            values: values.ok_or(Malformed::Value)?,
        };
        match (event.value("ACTION"), event.value("DEVPATH")) {
            (Some(says), Some(at)) if says == action && at == path => Ok(event),
            (None, _) | (_, None) => Err(Malformed::Value),
            _ => Err(Malformed::Contradiction),
        }
    }

    /// The first value of a key.
    pub fn value(&self, key: &str) -> Option<&str> {
        let mut values = self.values.iter();
        let (_, value) = values.find(|(of, _)| of == key)?;
        Some(value)
    }

    /// What it means for mediated devices; `None`, as a rule: nothing.
    pub fn change(&self) -> Option<Change> {
        let mut names = self.path.rsplit('/');
        let name = names.next().filter(|name| !name.is_empty())?;
        match (self.action.as_str(), self.value("SUBSYSTEM")?) {
            (action @ ("add" | "remove"), "mdev") => {
                let parent = names.next().filter(|name| !name.is_empty())?.to_owned();
                let uuid = uuid(name).ok()?;
                Some(match action {
                    "add" => Change::Made { uuid, parent },
                    _ => Change::Removed { uuid, parent },
                })
            }
            ("change", _) => {
                let parent = name.to_owned();
                match self.value("MDEV_STATE")? {
                    "registered" => Some(Change::ParentCame { parent }),
                    "unregistered" => Some(Change::ParentWent { parent }),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::A;

    fn event(action: &str, path: &str, values: &[&str]) -> Vec<u8> {
        let mut text = format!("{action}@{path}\0ACTION={action}\0DEVPATH={path}\0");
        for value in values {
            text += value;
            text += "\0";
        }
        text.into_bytes()
    }

    fn change(action: &str, path: &str, values: &[&str]) -> Option<Change> {
        Uevent::parse(&event(action, path, values))
            .unwrap()
            .change()
    }

    #[test]
    fn what_comes_and_goes_is_told() {
        let at = format!("/devices/virtual/mtty/mtty/{A}");
        let (uuid, parent) = (uuid(A).unwrap(), "mtty".to_owned());
        let mdev = ["SUBSYSTEM=mdev", "SEQNUM=1"];
        assert_eq!(
            change("add", &at, &mdev),
            Some(Change::Made {
                uuid,
                parent: parent.clone()
            })
        );
        assert_eq!(
            change("remove", &at, &mdev),
            Some(Change::Removed {
                uuid,
                parent: parent.clone()
            })
        );
        assert_eq!(change("bind", &at, &mdev), None);
        assert_eq!(change("add", &at, &["SUBSYSTEM=vfio"]), None);
        assert_eq!(change("add", "/mtty", &mdev), None);
        assert_eq!(change("add", &format!("/{A}"), &mdev), None);
        let home = "/devices/virtual/mtty/mtty";
        let came = ["MDEV_STATE=registered", "SUBSYSTEM=mtty"];
        assert_eq!(
            change("change", home, &came),
            Some(Change::ParentCame {
                parent: parent.clone()
            })
        );
        let went = ["MDEV_STATE=unregistered", "SUBSYSTEM=mtty"];
        assert_eq!(
            change("change", home, &went),
            Some(Change::ParentWent { parent })
        );
        assert_eq!(
            change("change", home, &["MDEV_STATE=odd", "SUBSYSTEM=mtty"]),
            None
        );
        assert_eq!(change("change", home, &["SUBSYSTEM=mtty"]), None);
    }

    #[test]
    fn nothing_is_guessed() {
        let parse = |text: &str| Uevent::parse(text.as_bytes());
        assert_eq!(
            Uevent::parse(b"add@/a\0ACTION=\xff\0"),
            Err(Malformed::NoText)
        );
        assert_eq!(parse(""), Err(Malformed::Cut));
        assert_eq!(parse("add@/a\0ACTION=add\0DEVPATH=/a"), Err(Malformed::Cut));
        for header in ["", "libudev", "add@", "add@a", "@/a", "ADD@/a", "a d@/a"] {
            assert_eq!(
                parse(&format!("{header}\0X=1\0")),
                Err(Malformed::Header),
                "{header}"
            );
        }
        for rest in [
            "ACTION=add",
            "DEVPATH=/a",
            "ACTION=add\0DEVPATH=/a\0=1",
            "ACTION=add\0DEVPATH=/a\0x",
        ] {
            assert_eq!(
                parse(&format!("add@/a\0{rest}\0")),
                Err(Malformed::Value),
                "{rest}"
            );
        }
        for rest in ["ACTION=remove\0DEVPATH=/a", "ACTION=add\0DEVPATH=/b"] {
            let two = parse(&format!("add@/a\0{rest}\0"));
            assert_eq!(two, Err(Malformed::Contradiction), "{rest}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            if let Ok(event) = Uevent::parse(&bytes) {
                prop_assert!(event.path.starts_with('/'));
                let _ = event.change();
            }
        }
    }
}
