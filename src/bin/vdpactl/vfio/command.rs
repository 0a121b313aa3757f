//! The command line of `vdpactl vfio`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use vdpa::vfio::sysfs::Regard;

#[derive(Args, Debug)]
pub(crate) struct Vfio {
    #[command(subcommand)]
    pub(super) command: Command,

    /// Look at a copy of a machine's /sys, /proc and /dev in DIR instead of at this machine. What would be written to the
    /// kernel changes the copy as the kernel would change it
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    pub(super) root: PathBuf,

    /// Where it is recorded what functions were like before they were changed [default: /run/vdpactl/vfio in --root]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
pub(super) enum Command {
    /// List the PCI functions that are virtio or are taken for it, and those that VFIO has
    List {
        /// List every function
        #[arg(long)]
        all: bool,
    },
    /// Examine what is in the way of using a function, and say what mends it
    ///
    /// Each line passes, fails, or is unknown, where something else has to be mended before it can be seen; below one that
    /// does not pass stands the command that mends it. Exit code 1: a line fails. A function that is ready is opened and
    /// reset, to read which features it offers; all else is only looked at.
    Doctor {
        /// The function, as in 0000:01:00.1
        #[arg(value_name = "BDF")]
        function: String,
    },
    /// Give a function to VFIO: driver_override, unbind, drivers_probe, and a look at what came of it
    ///
    /// A function with a disk in use, an interface that is up or in another network namespace, the display or virtual
    /// functions is left alone. What it was like before is recorded first, so that `restore` undoes even what a crash cut
    /// short. Done again, it does nothing.
    Bind {
        /// The function, as in 0000:01:00.1
        #[arg(value_name = "BDF")]
        function: String,
        #[command(flatten)]
        how: How,
    },
    /// Take a function from VFIO, and give it back to the driver that had it, or to one that takes it
    Unbind {
        /// The function, as in 0000:01:00.1
        #[arg(value_name = "BDF")]
        function: String,
        #[command(flatten)]
        how: How,
    },
    /// Make functions as they were before bind, unbind and vf create changed them, also after a crash
    Restore {
        /// Only these functions [default: all that were changed]
        #[arg(value_name = "BDF")]
        functions: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Virtual functions (SR-IOV)
    #[command(arg_required_else_help = false)]
    Vf {
        #[command(subcommand)]
        command: VfCommand,
    },
}

#[derive(Subcommand, Debug)]
pub(super) enum VfCommand {
    /// Have a physical function make N virtual ones, which no driver takes by itself; 0 takes them away
    ///
    /// The kernel changes their number by way of none: those that there are go first, also from VFIO, and others come.
    Create {
        /// The physical function, as in 0000:01:00.0
        #[arg(value_name = "PF")]
        function: String,
        /// How many there are to be
        #[arg(value_name = "N")]
        count: u16,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Args, Clone, Copy, Debug)]
pub(super) struct How {
    /// Change it even if it is in use. A process that has it open is waited for
    #[arg(long)]
    pub(super) force: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

impl How {
    pub(super) fn regard(self) -> Regard {
        match self.force {
            true => Regard::Force,
            false => Regard::Spare,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::options::Options;

    #[test]
    fn commands_of_the_guide_are_command_lines() {
        let guide = include_str!("../../../../docs/lab-machine.md");
        let mut lines = 0;
        for line in guide.lines().filter(|line| line.starts_with("vdpactl ")) {
            // Up to a comment, the next command or a redirection.
            let end = line.find([';', '#', '>']).unwrap_or(line.len());
            let words = line[..end].trim_end_matches(" 2").split_whitespace();
            if let Err(refusal) = Options::try_parse_from(words) {
                assert!(!refusal.use_stderr(), "{line}: {refusal}");
            }
            lines += 1;
        }
        assert!(lines > 20, "{lines} lines");
    }
}
