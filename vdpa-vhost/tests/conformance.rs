//! The statements of the specification, held against simulated devices over a socket: the driver, the parent, the protocol
//! and the project's own end between them.

mod back;

use back::{Back, mirror};
use vdpa_conformance::{Effort, Selection, Target, run};

/// * `behind`: a device string of the simulator
/// * `rest`: of the device in front
/// * `except`: what is not kept over the socket, and why
fn holds(behind: &str, rest: &str, except: &[(u16, &str)]) {
    let back = Back::new(behind);
    let mut target = Target::named(&mirror(), &back.spec(rest)).unwrap();
    for (id, reason) in except {
        target = target.except(*id, *reason);
    }
    let set = back.setter();
    let target = target.managed(move |_, attr| set(attr));
    let report = run(&target, &Selection::all(Effort::Full));
    println!("{report}");
    assert_eq!(report.failed(), 0, "{report}");
}

/// What no message says: a queue that is reset alone is one that was stopped.
const CARD: &[(u16, &str)] = &[
    (
        179,
        "a back end is told of a stop where a queue is reset, and packets for a stopped queue wait",
    ),
    (
        181,
        "a back end is told of a stop where a queue is reset, and keeps how its calls are held back",
    ),
];

#[test]
fn a_network_card_over_a_socket_keeps_what_a_card_keeps() {
    holds("sim:net", "type=net", CARD);
}

#[test]
fn a_card_of_four_pairs_over_a_socket_keeps_what_a_card_keeps() {
    holds("sim:net,queue_pairs=4", "type=net", CARD);
}

#[test]
fn a_disk_over_a_socket_keeps_what_a_disk_keeps() {
    holds("sim:blk,size=16M", "type=blk", &[]);
}

#[test]
fn a_source_of_entropy_over_a_socket_keeps_what_one_keeps() {
    holds("sim:rng", "type=rng", &[]);
}
