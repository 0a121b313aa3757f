//! What is hashed of a packet, and where it goes by that.

use std::net::{IpAddr, SocketAddr};

use vdpa_core::bits::net;
use vdpa_core::config::net::HashTypes;
use vdpa_core::{DeviceType, Features};

use super::card::{config, loops, other_half};
use super::packet::{Flow, TCP4, TCP6, payload};
use super::steering::{MQ, Pairs, RSS, SMALL};
use crate::checked::ensure;
use crate::{Bench, Checked, Stop, Variant};

const RSS_CONFIG: [u8; 2] = [4, 1];
const HASH_CONFIG: [u8; 2] = [4, 2];

const REPORT: Features = Features::NONE.with(net::HASH_REPORT);

/// The key with which Microsoft's verification suite ("Verifying the RSS hash calculation") has its hashes.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// Its examples: destination, source, the hash of the addresses, and that of addresses and TCP ports.
const EXAMPLES: [(&str, &str, u32, u32); 8] = [
    (
        "161.142.100.80:1766",
        "66.9.149.187:2794",
        0x323e_8fc2,
        0x51cc_c178,
    ),
    (
        "65.69.140.83:4739",
        "199.92.111.2:14230",
        0xd718_262a,
        0xc626_b0ea,
    ),
    (
        "12.22.207.184:38024",
        "24.19.198.95:12898",
        0xd2d0_a5de,
        0x5c2b_394a,
    ),
    (
        "209.142.163.6:2217",
        "38.27.205.30:48228",
        0x8298_9176,
        0xafc7_327f,
    ),
    (
        "202.188.127.2:1303",
        "153.39.163.191:44251",
        0x5d18_09c5,
        0x10e8_28a2,
    ),
    (
        "[3ffe:2501:200:3::1]:1766",
        "[3ffe:2501:200:1fff::7]:2794",
        0x2cc1_8cd5,
        0x4020_7d3d,
    ),
    (
        "[ff02::1]:4739",
        "[3ffe:501:8::260:97ff:fe40:efab]:14230",
        0x0f0c_461c,
        0xdde5_1bbf,
    ),
    (
        "[fe80::200:f8ff:fe21:67cf]:38024",
        "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
        0x4b61_e985,
        0x02d1_feef,
    ),
];

/// An example as a frame, with the types that it can be hashed by and what comes out.
struct Example {
    frame: Vec<u8>,
    ports: (HashTypes, u32),
    addresses: (HashTypes, u32),
}

fn examples() -> Checked<Vec<Example>> {
    let parse = |text: &str| {
        let parsed = text.parse::<SocketAddr>();
        parsed.map_err(|e| Stop::failed(format!("{text}: {e}")))
    };
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut all = Vec::new();
    for (seed, (to, from, addresses, ports)) in (0..).zip(EXAMPLES) {
        let (to, from) = (parse(to)?, parse(from)?);
        let flow = Flow {
            from: octets(from.ip()),
            to: octets(to.ip()),
            ports: [from.port(), to.port()],
        };
        let (kind, with_ports, without) = match to.is_ipv6() {
            true => (TCP6, HashTypes::TCPV6, HashTypes::IPV6),
            false => (TCP4, HashTypes::TCPV4, HashTypes::IPV4),
        };
        all.push(Example {
            frame: kind.whole(&flow, &payload(seed, SMALL)),
            ports: (with_ports, ports),
            addresses: (without, addresses),
        });
    }
    Ok(all)
}

impl Example {
    /// The type that it is hashed by if these are enabled, and its hash.
    fn hash(&self, types: HashTypes) -> Option<(HashTypes, u32)> {
        let both = [self.ports, self.addresses];
        both.into_iter().find(|(kind, _)| types.contains(*kind))
    }
}

fn key() -> Vec<u8> {
    [&[KEY.len() as u8][..], &KEY].concat()
}

fn hash_config(types: HashTypes) -> Vec<u8> {
    [
        &HASH_CONFIG[..],
        &types.bits().to_le_bytes(),
        &[0; 8],
        &key(),
    ]
    .concat()
}

fn rss_config(types: HashTypes, unclassified: u16, table: &[u16], transmit: u16) -> Vec<u8> {
    let mask = (table.len() as u16).wrapping_sub(1);
    let words = [mask, unclassified].into_iter();
    let words = words.chain(table.iter().copied()).chain([transmit]);
    let words: Vec<u8> = words.flat_map(u16::to_le_bytes).collect();
    [&RSS_CONFIG[..], &types.bits().to_le_bytes(), &words, &key()].concat()
}

/// The sets of types that are tried, as far as they are supported.
fn sets(all: &Pairs<'_>) -> Checked<Vec<HashTypes>> {
    let supported = config(&all.card.rig)?.supported_hash_types();
    let addresses = HashTypes::IPV4 | HashTypes::IPV6;
    let ports = HashTypes::TCPV4 | HashTypes::TCPV6;
    let sets = [addresses | ports, addresses, HashTypes::empty(), ports];
    Ok(sets.into_iter().map(|set| set & supported).collect())
}

/// Sends the examples and looks at where they come, if that is told, and at what is reported of them.
fn hashed(all: &mut Pairs<'_>, types: HashTypes, table: Option<(&[u16], u16)>) -> Checked {
    for example in examples()? {
        all.send(0, &example.frame)?;
        let (pair, came) = all.receive()?;
        ensure!(came.frame == example.frame, "another packet came");
        let hash = example.hash(types);
        if let Some((table, unclassified)) = table {
            let at = hash.map(|(_, hash)| hash as usize & (table.len() - 1));
            let wanted = at.map_or(Some(&unclassified), |at| table.get(at));
            ensure!(
                wanted == Some(&pair),
                "a packet with the hash {hash:x?} came in pair {pair}, and {wanted:?} is its place"
            );
        }
        if all.card.has(net::HASH_REPORT) {
            // The types are bits, the reports count from 1: virtio 1.4 §5.1.9.4.5.
            let wanted = hash.map_or((0, 0), |(kind, hash)| {
                (hash, kind.bits().trailing_zeros() as u16 + 1)
            });
            let (value, report) = came.hash;
            // Of no hash there is no value.
            ensure!(
                report == wanted.1 && (report == 0 || value == wanted.0),
                "hash_value is {value:#x} and hash_report {report}, where {wanted:x?} is right"
            );
        }
    }
    Ok(())
}

pub(super) fn hashing_can_be_set(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    let offered = bench.offered()?;
    if !offered.contains(net::RSS) {
        bench.require(net::HASH_REPORT)?;
    }
    let loops = loops(bench)?;
    if offered.contains(net::RSS) {
        let mut all = Pairs::open(bench, variant, RSS | REPORT | MQ, Features::NONE)?;
        let pairs = all.len();
        for (round, types) in (0..).zip(sets(&all)?) {
            for entries in [128_u16, 1, 2] {
                let table: Vec<u16> = (0..entries)
                    .map(|at| (at / 2 + at + round) % pairs)
                    .collect();
                let unclassified = round % pairs;
                let command = rss_config(types, unclassified, &table, pairs);
                all.card.order("RSS_CONFIG", &command)?;
                if loops {
                    hashed(&mut all, types, Some((&table, unclassified)))?;
                }
            }
        }
    }
    if offered.contains(net::HASH_REPORT) {
        let mut all = Pairs::open(bench, variant, REPORT, RSS | MQ)?;
        if loops {
            // At first all types are disabled.
            hashed(&mut all, HashTypes::empty(), None)?;
        }
        for types in sets(&all)? {
            all.card.order("HASH_CONFIG", &hash_config(types))?;
            if loops {
                hashed(&mut all, types, None)?;
            }
        }
    }
    other_half(loops)
}

pub(super) fn wrong_tables(bench: &Bench<'_>, variant: Variant) -> Checked {
    bench.require_type(DeviceType::Net)?;
    bench.require(net::RSS)?;
    let loops = loops(bench)?;
    let mut all = Pairs::open(bench, variant, RSS | REPORT, MQ)?;
    let (pairs, most) = (all.len(), all.most);
    let config = config(&all.card.rig)?;
    let supported = config.supported_hash_types();
    let types = supported & (HashTypes::TCPV4 | HashTypes::TCPV6);
    let good: Vec<u16> = (0..8).map(|at| at % pairs).collect();
    all.card
        .order("RSS_CONFIG", &rss_config(types, 0, &good, pairs))?;

    let longest = config.rss_max_indirection_table_length();
    let mut wrong = vec![
        ("3 entries", rss_config(types, 0, &[0; 3], 1)),
        ("6 entries", rss_config(types, 0, &[0; 6], 1)),
        (
            "a queue that is not there",
            rss_config(types, 0, &[0, most], 1),
        ),
        (
            "an unclassified queue that is not there",
            rss_config(types, most, &[0, 0], 1),
        ),
    ];
    let over =
        u32::from(longest).next_power_of_two() * if longest.is_power_of_two() { 2 } else { 1 };
    if over <= 4096 {
        let table = vec![0; over as usize];
        wrong.push(("a table that is too long", rss_config(types, 0, &table, 1)));
    }
    for (what, command) in wrong {
        let what = format!("RSS_CONFIG with {what}");
        all.card.refused(&what, &command)?;
        if loops {
            // Nothing is changed.
            hashed(&mut all, types, Some((&good, 0))).map_err(|e| e.about(what))?;
        }
    }
    other_half(loops)
}
