//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use smoltcp::wire::IpCidr;
use vdpa::net::Ring;
use vdpa_conformance::{Ids, catalogue};

use crate::mdev::Mdev;
use crate::vfio::Vfio;

/// Looks at vDPA devices, and drives them.
///
/// A device is named by a string, PARENT:WHAT[,key=value...], such as sim:net,mtu=9000,port=loopback.
/// `vdpactl mgmtdev show` lists the parents and their keys. Without a command, a demonstration runs.
#[derive(Parser, Debug)]
#[command(
    name = "vdpactl",
    version,
    after_help = "Exit codes: 0 all well; 1 it ran, and found a difference or a failure; 2 bad input, nothing done."
)]
pub(crate) struct Options {
    /// Print one JSON object on standard output, and all other text on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Tell of what goes on between driver and device, on standard error: error, warn, info, debug (contract calls) or
    /// trace (kicks and calls too). Without it RUST_LOG says what is told
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "debug"
    )]
    pub(crate) trace: Option<Level>,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// How much is told.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Show two simulated network cards exchange real packets, in a few seconds
    Demo,
    /// Management devices: what makes devices
    #[command(arg_required_else_help = false)]
    Mgmtdev {
        #[command(subcommand)]
        command: MgmtdevCommand,
    },
    /// Devices
    #[command(arg_required_else_help = false)]
    Dev {
        #[command(subcommand)]
        command: DevCommand,
    },
    /// Send a packet capture through a network device and keep what comes back
    ///
    /// Frames are sent through the first queue pair, and what comes back is compared byte for byte. `sent` counts frames
    /// given to the device. `dropped` counts the others, by reason: over_mtu and too_short were not sent; not_returned,
    /// altered and unexpected say what became of the rest.
    Replay(Replay),
    /// Measure packets per second and latency of a network device or a disk, everything verified
    ///
    /// One thread sends and receives through the first queue pair of a device whose port loops back. Each packet has a
    /// number, and `verified` counts those that came back whole and in order. Latency is measured after that, with one
    /// packet under way at a time.
    Bench(Bench),
    /// Hold a device to the virtio specification, statement by statement
    ///
    /// Devices are made one after the other from the device string and driven as no driver should, too: give it nothing that
    /// somebody else uses, and no disk with anything on it. Each statement has a number, which never changes. It is passed,
    /// failed with what was seen, skipped with the reason, or excepted, where the device is known not to keep it.
    Check(Check),
    /// Answer ARP, ping, and what is sent to a UDP or TCP port, as a host behind a network device
    ///
    /// Neighbours find it by ARP and IPv6 neighbour discovery; it answers echo requests, and returns whatever is sent to
    /// its port. All queue pairs are served. It ends well on SIGTERM or SIGINT, with what it has counted. With --json each
    /// line is an object with an event: ready, statistics, stopped. `large` counts frames that are cut into segments on
    /// their way, `partial` those whose checksum is completed there.
    Echo(Echo),
    /// Interrupt a network device or a disk in every way it has while it works, and account for everything
    ///
    /// Numbered packets with checksums go through a network device whose port loops back, or sectors that say which they are
    /// to a disk and back, while the device is reset, suspended, moved to a new device, paused and cut off at random points.
    /// What an operation may lose is written down (docs/reliability.md); anything else that is lost, comes twice or altered
    /// ends the soak with exit code 1, and with the command line that repeats it. Same seed, same plan. A disk is written to:
    /// what was on it is lost. With --json each line is an object with an event: plan, progress, result. `packets` counts a
    /// disk's requests.
    Soak(Soak),
    /// Serve devices to virtual machines and DPDK applications, by vhost-user
    ///
    /// The first SPEC is served at the first PATH, the second at the second: `serve sim:net,port=wire:a --vhost-user a.sock
    /// sim:net,port=wire:a --vhost-user b.sock`. One front end at a time uses a device: an unmodified QEMU, cloud-hypervisor or
    /// crosvm, a DPDK application's virtio-user, Open vSwitch (docs/vmm.md has the lines). It must share its memory. One that
    /// misbehaves is cut off with the reason, and the next one is served. SIGTERM and SIGINT end it well: what is under way
    /// is finished, the sockets are removed; a second one ends it at once. With --json each line is an object with an event
    /// (docs/vhost-user.md has their keys); `listening` comes first, once a front end can connect. SIGHUP has disks take on
    /// the sizes that their images have by then, while they are used; not where standard input is a terminal.
    ///
    /// Sockets that systemd passes are used where their path is given, or fd:NAME.
    Serve(Serve),
    /// PCI functions: list them, examine them, give them to VFIO and take them back
    ///
    /// docs/lab-machine.md tells the whole way, from the firmware's settings to a device that is driven.
    #[command(arg_required_else_help = false)]
    Vfio(Vfio),
    /// Mediated devices: list their types, make and remove them, and keep what they are to be
    ///
    /// docs/mediated-devices.md says what they are. Definitions are mdevctl's: each tool sees what the other defines.
    #[command(arg_required_else_help = false)]
    Mdev(Mdev),
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: Shell,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum MgmtdevCommand {
    /// List the parents, and the device strings they take
    Show,
}

#[derive(Subcommand, Debug)]
pub(crate) enum DevCommand {
    /// Show a device's features, queues, configuration and capabilities
    Show {
        /// The device, as in sim:net,queue_pairs=4
        spec: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Replay {
    /// The device, as in sim:net,mtu=9000
    pub(crate) spec: String,
    /// The capture to send: classic pcap, Ethernet
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,
    /// The capture to write: the frames that came back, in the order and with the times of IN
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,
    /// Ring format: split, packed, split-in-order or packed-in-order
    #[arg(long, value_name = "RING", default_value_t, value_parser = ring())]
    pub(crate) ring: Ring,
}

#[derive(Args, Debug)]
pub(crate) struct Bench {
    /// The device, as in sim:net,queue_size=1024 or sim:blk,file=disk.img
    #[arg(default_value = "sim:net")]
    pub(crate) spec: String,
    /// Ring format: split, packed, split-in-order or packed-in-order
    #[arg(long, value_name = "RING", default_value_t, value_parser = ring())]
    pub(crate) ring: Ring,
    /// Bytes of a frame, at least 60 [default: 64]; of a disk's block, a multiple of 512 [default: 4096]
    #[arg(long, value_parser = clap::value_parser!(u32).range(60..=65549))]
    pub(crate) size: Option<u32>,
    /// Packets, or a disk's requests, given to the device at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=32768))]
    pub(crate) batch: u16,
    /// Seconds to send for
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub(crate) seconds: f64,
}

#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The device, as in sim:net,queue_pairs=4
    pub(crate) spec: String,
    /// Every statement once with short loops, or in every ring variant that the device offers
    #[arg(long, value_enum, default_value_t = CheckEffort::Full)]
    pub(crate) effort: CheckEffort,
    /// Only these statements, as in 93-109,151
    #[arg(long, value_name = "IDS")]
    pub(crate) only: Option<Ids>,
    /// A statement that the device is known not to keep, and why; one that it does keep is a failure
    #[arg(long, value_name = "ID=REASON", value_parser = exception)]
    pub(crate) except: Vec<(u16, String)>,
    /// Try nothing more after the first failure
    #[arg(long)]
    pub(crate) fail_fast: bool,
    /// Print TAP, the Test Anything Protocol, instead of a table
    #[arg(long)]
    pub(crate) tap: bool,
    /// Write JUnit XML to this file as well
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
}

/// How hard a device is tried.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub(crate) enum CheckEffort {
    Quick,
    Full,
}

#[derive(Args, Debug)]
pub(crate) struct Soak {
    /// The device, as in sim:net,queue_pairs=4 or sim:blk,size=16M
    pub(crate) spec: String,
    /// How many packets, or requests
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub(crate) packets: u64,
    /// Which plan [default: another one each time, which is printed]
    #[arg(long, value_name = "S")]
    pub(crate) seed: Option<u64>,
    /// Packets from one interruption to the next, on average [default: by --packets, 50 to 2000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub(crate) every: Option<u64>,
    /// Only this ring format: split, packed, split-in-order or packed-in-order [default: all that the device has]
    #[arg(long, value_name = "RING", value_parser = ring())]
    pub(crate) ring: Option<Ring>,
}

#[derive(Args, Debug)]
pub(crate) struct Echo {
    /// The device, as in sim:net,port=tap:tap0
    pub(crate) spec: String,
    /// An address with its prefix, IPv4 or IPv6; may be given up to seven times
    #[arg(long, value_name = "CIDR", default_value = "192.0.2.2/24", value_parser = cidr)]
    pub(crate) ip: Vec<IpCidr>,
    /// The UDP and TCP port that returns what it is sent
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Ring format: split, packed, split-in-order or packed-in-order
    #[arg(long, value_name = "RING", default_value_t, value_parser = ring())]
    pub(crate) ring: Ring,
    /// Queue pairs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=0x7fff))]
    pub(crate) pairs: u16,
    /// Leave no checksum and no segmentation to the device
    #[arg(long)]
    pub(crate) no_offloads: bool,
    /// TCP connections at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) connections: u16,
    /// Seconds between two lines of statistics, 0 for none
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = pause)]
    pub(crate) every: f64,
    /// End by itself after so long
    #[arg(long, value_parser = seconds)]
    pub(crate) seconds: Option<f64>,
}

#[derive(Args, Debug)]
pub(crate) struct Serve {
    /// The device, as in sim:net,port=tap:tap0; several may be given
    #[arg(value_name = "SPEC", required = true)]
    pub(crate) specs: Vec<String>,
    /// The socket at which it is served: once for each device, in their order; or fd:NAME, one that systemd passes
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) vhost_user: Vec<PathBuf>,
    /// Connect to the sockets, where front ends listen, again and again
    #[arg(long)]
    pub(crate) client: bool,
    /// Who may connect, as of a file: 0660 [default: by the umask]
    #[arg(long, value_name = "MODE", value_parser = mode, conflicts_with = "client")]
    pub(crate) mode: Option<u32>,
    /// To whom the sockets are given: names or numbers
    #[arg(long, value_name = "USER[:GROUP]", conflicts_with = "client")]
    pub(crate) owner: Option<String>,
    /// Seconds between two lines of statistics, 0 for none [default: a live line on a terminal, else none]
    #[arg(long, value_name = "SECONDS", value_parser = pause)]
    pub(crate) stats: Option<f64>,
}

/// Which argument is no text, where there has to be one: paths may have any bytes.
pub(crate) fn no_text(line: Vec<OsString>) -> String {
    let is_to_blame = |at: &usize| {
        // As if the others were text.
        let others = line
            .iter()
            .enumerate()
            .map(|(other, argument)| match other == *at {
                true => argument.clone(),
                false => argument.to_string_lossy().into_owned().into(),
            });
        let refusal = Options::try_parse_from(others).err();
        refusal.is_some_and(|refusal| refusal.kind() == ErrorKind::InvalidUtf8)
    };
    let at = (1..line.len()).find(is_to_blame);
    // With nothing else in the way of seeing it, or what it stands beside.
    let first = || line.iter().position(|argument| argument.to_str().is_none());
    let at = at.or_else(first).unwrap_or_default();
    let shown = line.get(at).map(|argument| argument.to_string_lossy());
    let shown: String = shown
        .iter()
        .flat_map(|shown| shown.chars().flat_map(char::escape_debug))
        .collect();
    format!("argument {at}, `{shown}`, is no text: it has to be UTF-8")
}

fn ring() -> impl clap::builder::TypedValueParser<Value = Ring> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};

    PossibleValuesParser::new(Ring::ALL.map(Ring::name)).try_map(|name| name.parse::<Ring>())
}

fn cidr(text: &str) -> Result<IpCidr, String> {
    let wrong = || "an address with its prefix, as in 192.0.2.2/24 or fd00::2/64".to_owned();
    let cidr: IpCidr = text.parse().map_err(|()| wrong())?;
    match cidr.address().is_unicast() {
        true => Ok(cidr),
        false => Err("no address of a single host".to_owned()),
    }
}

fn exception(text: &str) -> Result<(u16, String), String> {
    let known = text.split_once('=').and_then(|(id, reason)| {
        let id = catalogue().iter().find(|s| s.id.to_string() == id)?.id;
        let reason = reason.trim();
        (!reason.is_empty()).then(|| (id, reason.to_owned()))
    });
    let last = catalogue().len();
    known
        .ok_or_else(|| format!("a statement from 1 to {last} and a reason, as in 110=known bug 42"))
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 && !text.starts_with('+') => Ok(mode),
        _ => Err("a mode is an octal number from 0 to 0777, as in 0660".to_owned()),
    }
}

fn pause(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds == 0.0 || (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds are a number from 0.05 to 3600, or 0".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds are a number from 0.05 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Options::command().debug_assert();
    }

    #[test]
    fn no_command_is_the_demonstration() {
        let options = Options::try_parse_from(["vdpactl"]).unwrap();
        assert!(options.command.is_none());
        assert!(!options.json);
    }

    #[test]
    fn json_may_stand_anywhere() {
        for line in [["vdpactl", "--json", "demo"], ["vdpactl", "demo", "--json"]] {
            assert!(Options::try_parse_from(line).unwrap().json);
        }
    }
}
