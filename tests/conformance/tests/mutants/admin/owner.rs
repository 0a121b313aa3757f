//! Owners that carry commands out wrongly, or say that they have.

use std::sync::atomic::Ordering;

use super::{Asked, Wrong, as_it_is, asks_well, op, says_well, status};

/// Bytes of a part before its value, and of a command's data before parts.
const PART: usize = 16;
const OBJECT: usize = 8;

/// What an owner can have tried again without being caught by what asks for several commands at once.
pub fn may_wait(asked: &Asked) -> bool {
    [op::CREATE, op::DESTROY].contains(&asked.opcode)
}

/// The object that a command is about.
fn id(asked: &Asked) -> u8 {
    asked.data.get(4).copied().unwrap_or(0)
}

/// Whether a DEV_PARTS_SET sets one part alone, and not the whole state of a member.
fn sets_one(asked: &Asked) -> bool {
    let len = asked.data.get(OBJECT + 12..OBJECT + PART);
    let len = len.map_or(0, |len| u32::from_le_bytes(len.try_into().unwrap()));
    asked.is(op::PARTS_SET) && asked.data.len() == OBJECT + PART + len as usize
}

macro_rules! wrong {
    ($($id:literal $name:literal ask: $ask:expr, say: $say:expr;)+) => {
        pub const WRONG: &[Wrong] = &[$(Wrong {
            name: $name,
            caught_by: $id,
            ask: $ask,
            say: $say,
            member: as_it_is,
        }),+];
    };
}

wrong! {
    132 "takes a group that there is not for an opcode that there is not"
        ask: asks_well,
        say: |_, asked, answer| if asked.group > 1 {
            answer.say(status::EINVAL, 2);
        };
    132 "looks at the member before the opcode"
        ask: asks_well,
        say: |_, asked, answer| if asked.group == 1 && asked.member > 2 && answer.status() != status::OK {
            answer.say(status::EINVAL, 5);
        };
    133 "uses less after a list that it has refused"
        ask: |_, asked| if asked.is(op::LIST_USE) && asked.list() >> 63 != 0 {
            asked.data = 0b11_u64.to_le_bytes().to_vec();
        },
        say: |_, asked, answer| if asked.is(op::LIST_USE) && asked.list() >> 63 != 0 {
            answer.say(status::EINVAL, 3);
        };
    134 "carries out commands that nobody has said to use"
        ask: asks_well,
        say: |_, asked, answer| if asked.mode().is_some() && answer.qualifier() == 2 {
            answer.say(status::OK, 0);
        };
    134 "remembers over a reset what is used"
        ask: asks_well,
        say: |kept, asked, answer| {
            let used = *kept.used.lock().unwrap();
            if asked.mode().is_some() && used & 1 << op::MODE_SET != 0 && answer.qualifier() == 2 {
                answer.say(status::OK, 0);
            }
        };
    135 "lists no more than what is used"
        ask: asks_well,
        say: |kept, asked, answer| {
            let used = *kept.used.lock().unwrap();
            if asked.is(op::LIST_QUERY) && used != 0 {
                for (byte, used) in answer.result().iter_mut().zip(used.to_le_bytes()) {
                    *byte &= used;
                }
            }
        };
    136 "looks at 16 bits of a member's number"
        ask: |_, asked| asked.member &= 0xffff,
        say: says_well;
    136 "counts members from 0"
        ask: |_, asked| if asked.mode().is_some() && asked.member == 0 {
            asked.member = 1;
        },
        say: says_well;
    137 "refuses a command without the end of its header"
        ask: asks_well,
        say: |_, asked, answer| if !asked.whole {
            answer.say(status::EINVAL, 1);
        };
    137 "refuses a command with more than it looks at"
        ask: asks_well,
        say: |_, asked, answer| if asked.is(op::LIST_QUERY) && asked.data.len() > 100 {
            answer.say(status::EINVAL, 1);
        };
    138 "lets what comes together overtake a list that is to be used"
        ask: |kept, asked| if asked.is(op::LIST_USE) && asked.list() == 0b11 {
            kept.count.fetch_add(1, Ordering::SeqCst);
            asked.make_harmless();
        },
        say: says_well;
    138 "makes an object, and says to try again"
        ask: asks_well,
        say: |kept, asked, answer| if asked.is(op::CREATE) && answer.status() == status::OK && kept.again() == 0 {
            answer.say(status::EAGAIN, 7);
        };
    138 "destroys an object, and has no memory"
        ask: asks_well,
        say: |kept, asked, answer| if asked.is(op::DESTROY) && answer.status() == status::OK && kept.again() == 0 {
            answer.say(status::ENOMEM, 6);
        };
    138 "destroys an object whose parts have no room"
        ask: |_, asked| if asked.is(op::METADATA_GET) {
            asked.opcode = op::DESTROY;
        },
        say: |_, asked, answer| if asked.is(op::METADATA_GET) {
            answer.say(status::ENOMEM, 1);
        };
    138 "uses another list, and says to try again"
        ask: asks_well,
        say: |kept, asked, answer| {
            let without_query = asked.list() != 0b11 && asked.list() & 1 << op::QUERY == 0;
            if asked.is(op::LIST_USE) && without_query && kept.again() == 0 {
                answer.say(status::EAGAIN, 7);
            }
        };
    140 "says that a member has stopped that goes on"
        ask: |_, asked| if asked.mode() == Some(1) {
            asked.data = vec![0];
        },
        say: says_well;
    141 "is busy when it is to stop a member twice"
        ask: asks_well,
        say: |kept, asked, answer| if asked.mode() == Some(1) && asked.member == 1 && kept.is_stopped() {
            answer.say(status::EBUSY, 1);
        };
    141 "refuses to resume a member that runs"
        ask: asks_well,
        say: |kept, asked, answer| if asked.mode() == Some(0) && asked.member == 1 && !kept.is_stopped() {
            answer.say(status::EINVAL, 3);
        };
    142 "has parts in another order"
        ask: asks_well,
        say: |_, asked, answer| if asked.is(op::PARTS_GET) && answer.status() == status::OK {
            let result = answer.result();
            // The first two are of 16 bytes each.
            let (first, second) = result[..2 * (PART + 16)].split_at_mut(PART + 16);
            first.swap_with_slice(second);
        };
    142 "has other parts when they are got again"
        ask: asks_well,
        say: |kept, asked, answer| if asked.is(op::PARTS_GET) && kept.again() > 0 {
            // What the driver has chosen.
            answer.result()[PART + 16 + PART] ^= 1;
        };
    142 "takes parts once"
        ask: asks_well,
        say: |kept, asked, answer| if asked.is(op::PARTS_SET) && kept.again() > 0 {
            answer.say(status::EBUSY, 1);
        };
    142 "takes a part that is too long"
        ask: asks_well,
        say: |_, asked, answer| if sets_one(asked) && asked.data.len() > OBJECT + PART + 16 {
            answer.say(status::OK, 0);
        };
    143 "takes other features than its own"
        ask: asks_well,
        say: |_, asked, answer| if sets_one(asked) {
            answer.say(status::OK, 0);
        };
    143 "has the features that it was to have"
        ask: asks_well,
        say: |kept, asked, answer| {
            if sets_one(asked) && answer.status() != status::OK {
                kept.keep(&asked.data[OBJECT + PART..]);
            }
            let set = kept.bytes();
            if asked.is(op::PARTS_GET) && !set.is_empty() {
                answer.result()[PART..PART + set.len()].copy_from_slice(&set);
            }
        };
    145 "keeps the id of an object that was destroyed"
        ask: asks_well,
        say: |kept, asked, answer| {
            if asked.is(op::DESTROY) {
                kept.keep(&[id(asked)]);
            }
            if asked.is(op::CREATE) && kept.bytes() == [id(asked)] {
                answer.say(status::EEXIST, 3);
            }
        };
    145 "changes an object that it refuses to change"
        ask: |_, asked| if asked.is(op::MODIFY) {
            asked.data[16] = 1;
        },
        say: |_, asked, answer| if asked.is(op::MODIFY) {
            answer.say(status::EINVAL, 3);
        };
    145 "loses an object that it refuses to change"
        ask: |_, asked| if asked.is(op::MODIFY) {
            asked.opcode = op::DESTROY;
        },
        say: |_, asked, answer| if asked.is(op::MODIFY) {
            answer.say(status::EINVAL, 3);
        };
    145 "shows an object that was destroyed"
        ask: asks_well,
        say: |kept, asked, answer| {
            if asked.is(op::QUERY) && answer.status() == status::OK {
                kept.keep(&answer.all());
            }
            if asked.is(op::QUERY) && answer.status() == status::ENXIO {
                answer.put(&kept.bytes());
            }
        };
}
