//! Administration virtqueue (owner PF).

mod client;
mod commands;
mod members;
mod parts;

use crate::statement::Check::Once;
use crate::statement::{Entry, device};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        132,
        "2.12.1.5",
        "Group, then opcode, then member are validated, with the right qualifier",
        Once(commands::validated_in_order),
    ),
    device(
        133,
        "2.12.1.5",
        "EINVAL has no side effect",
        Once(commands::invalid_changes_nothing),
    ),
    device(
        134,
        "2.12.1.5",
        "Only LIST_QUERY and LIST_USE are legal until LIST_USE",
        Once(commands::list_comes_first),
    ),
    device(
        135,
        "2.12.1.5",
        "The supported list never shrinks",
        Once(commands::list_stays),
    ),
    device(
        136,
        "2.12.1.5",
        "A member outside 1..NumVFs is rejected",
        Once(commands::members_out_of_range),
    ),
    device(
        137,
        "2.13.1",
        "Shorter and longer buffers are accepted",
        Once(commands::any_length),
    ),
    device(
        138,
        "2.13.1",
        "Commands run in queue order; EAGAIN and ENOMEM have no effect",
        Once(commands::in_queue_order),
    ),
    device(
        139,
        "4.1.4.3.1",
        "admin_queue_index >= num_queues and fits 16 bits",
        Once(commands::queue_numbers),
    ),
    device(
        140,
        "2.12.1.4.4.1",
        "Stopped: no DMA, no queue access, no notification",
        Once(members::rests_while_stopped),
    ),
    device(
        141,
        "2.12.1.4.4.1",
        "Stop twice and resume twice succeed",
        Once(commands::stops_twice),
    ),
    device(
        142,
        "2.12.1.4.4.1",
        "Parts come in table order; get and set repeat; a length mismatch is rejected",
        Once(parts::parts_repeat),
    ),
    device(
        143,
        "2.12.1.4.4.1",
        "DEV_FEATURES is compared, never set",
        Once(parts::features_are_compared),
    ),
    device(
        144,
        "2.12.1.4.4.1",
        "Parts return to default on reset",
        Once(members::parts_are_cleared),
    ),
    device(
        145,
        "2.12.1.3.5",
        "A destroyed object's id is reusable; a failed modify has no effect; reset destroys all",
        Once(parts::objects_come_and_go),
    ),
];
