//! Administration virtqueue (owner PF).

use super::ADMIN;
use crate::statement::Check::OutOfReach;
use crate::statement::{Entry, device};

pub(crate) const STATEMENTS: &[Entry] = &[
    device(
        132,
        "2.12.1.5",
        "Group, then opcode, then member are validated, with the right qualifier",
        OutOfReach(ADMIN),
    ),
    device(
        133,
        "2.12.1.5",
        "EINVAL has no side effect",
        OutOfReach(ADMIN),
    ),
    device(
        134,
        "2.12.1.5",
        "Only LIST_QUERY and LIST_USE are legal until LIST_USE",
        OutOfReach(ADMIN),
    ),
    device(
        135,
        "2.12.1.5",
        "The supported list never shrinks",
        OutOfReach(ADMIN),
    ),
    device(
        136,
        "2.12.1.5",
        "A member outside 1..NumVFs is rejected",
        OutOfReach(ADMIN),
    ),
    device(
        137,
        "2.13.1",
        "Shorter and longer buffers are accepted",
        OutOfReach(ADMIN),
    ),
    device(
        138,
        "2.13.1",
        "Commands run in queue order; EAGAIN and ENOMEM have no effect",
        OutOfReach(ADMIN),
    ),
    device(
        139,
        "4.1.4.3.1",
        "admin_queue_index >= num_queues and fits 16 bits",
        OutOfReach(ADMIN),
    ),
    device(
        140,
        "2.12.1.4.4.1",
        "Stopped: no DMA, no queue access, no notification",
        OutOfReach(ADMIN),
    ),
    device(
        141,
        "2.12.1.4.4.1",
        "Stop twice and resume twice succeed",
        OutOfReach(ADMIN),
    ),
    device(
        142,
        "2.12.1.4.4.1",
        "Parts come in table order; get and set repeat; a length mismatch is rejected",
        OutOfReach(ADMIN),
    ),
    device(
        143,
        "2.12.1.4.4.1",
        "DEV_FEATURES is compared, never set",
        OutOfReach(ADMIN),
    ),
    device(
        144,
        "2.12.1.4.4.1",
        "Parts return to default on reset",
        OutOfReach(ADMIN),
    ),
    device(
        145,
        "2.12.1.3.5",
        "A destroyed object's id is reusable; a failed modify has no effect; reset destroys all",
        OutOfReach(ADMIN),
    ),
];
