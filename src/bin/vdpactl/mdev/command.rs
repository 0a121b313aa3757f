//! The command line of `vdpactl mdev`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
pub(crate) struct Mdev {
    #[command(subcommand)]
    pub(super) command: Command,

    /// Look at a copy of a machine's /sys and /etc in DIR instead of at this machine. What would be written to the kernel
    /// changes the copy as the kernel would change it
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub(super) root: PathBuf,

    /// Where definitions are kept, in mdevctl's format [default: /etc/mdevctl.d in --root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// List the types of mediated devices that can be made, and how many of each
    Types {
        /// Only those of this parent
        #[arg(long, value_name = "PARENT")]
        parent: Option<String>,
        /// Those of slices of this network device instead, which is opened for that: `sim:net,mtu=9000`
        ///
        /// Slices live in the process that makes them, by `mdev:slice,of=DEVICE`: there is no `create`, `list` or `remove`
        /// of them from another one, and what they share is counted there
        #[arg(long, value_name = "DEVICE", conflicts_with = "parent")]
        of: Option<String>,
    },
    /// List the mediated devices that there are, and those that are defined
    List {
        /// Only those of this parent
        #[arg(long, value_name = "PARENT")]
        parent: Option<String>,
    },
    /// Make a mediated device
    ///
    /// It is there until it is removed, or the machine is restarted: `define` is for one that outlives that.
    Create {
        /// Its type, as `types` names it
        #[arg(value_name = "TYPE")]
        kind: String,
        /// Its name [default: a new one, which is printed]
        uuid: Option<String>,
        /// The device that makes it [default: the only one that has the type]
        #[arg(long, value_name = "PARENT")]
        parent: Option<String>,
    },
    /// Remove a mediated device; its definition stays
    ///
    /// Who has it open is asked to let it go, and is waited for: the kernel lets nothing interrupt that.
    Remove {
        /// Its name
        uuid: String,
    },
    /// Keep what a mediated device is to be, so that mdevctl and `start` can make it
    ///
    /// mdevctl's scripts (`scripts.d`) are not run, by this or any other command here: where there are any, that is said.
    Define {
        /// Its type, as `types` names it
        #[arg(value_name = "TYPE")]
        kind: String,
        /// Its name [default: a new one, which is printed]
        uuid: Option<String>,
        /// The device that makes it, there or not [default: the only one that has the type]
        #[arg(long, value_name = "PARENT")]
        parent: Option<String>,
        /// Have it made whenever its parent comes: mdevctl does so
        #[arg(long)]
        auto: bool,
        /// An attribute, and what is written to it once the device is made; in the order given
        #[arg(long = "attr", value_name = "NAME=VALUE", value_parser = attribute)]
        attributes: Vec<(String, String)>,
    },
    /// Forget what a mediated device was to be; the device itself stays
    Undefine {
        /// Its name
        uuid: String,
        /// Which definition, where it is defined for several parents
        #[arg(long, value_name = "PARENT")]
        parent: Option<String>,
    },
    /// Make a mediated device that is defined, and set its attributes
    ///
    /// mdevctl's scripts (`scripts.d`), which may refuse a device or set it up, are not run: `mdevctl start` runs them.
    Start {
        /// Its name
        uuid: String,
        /// Which definition, where it is defined for several parents
        #[arg(long, value_name = "PARENT")]
        parent: Option<String>,
    },
}

impl Command {
    /// Whether devices or definitions are others afterwards.
    pub(super) fn changes(&self) -> bool {
        !matches!(self, Self::Types { .. } | Self::List { .. })
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a name and a value, as in frame_rate=0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::options::Options;

    #[test]
    fn commands_of_the_guide_are_command_lines() {
        let guide = include_str!("../../../../docs/mediated-devices.md");
        let mut lines = 0;
        for line in guide.lines().filter(|line| line.starts_with("vdpactl ")) {
            // Up to a comment.
            let end = line.find('#').unwrap_or(line.len());
            if let Err(refusal) = Options::try_parse_from(line[..end].split_whitespace()) {
                assert!(!refusal.use_stderr(), "{line}: {refusal}");
            }
            lines += 1;
        }
        assert!(lines >= 8, "{lines} lines");
    }
}
