//! Sections M and N over a socket: memory that a front end gives, and takes away.

use std::fs::File;
use std::os::fd::OwnedFd;

use vdpa_hostile::socket::{Come, GUEST, MEMORY, SPARE, SPARE_BYTES, Socket, Stage, USER, file};
use vdpa_hostile::suite::{Code, code};
use vdpa_ring::Format;
use vdpa_vhost_user::payload::{Inflight, Log, MemoryRegion};
use vdpa_vhost_user::{F_LOG_ALL, FrontMessage, FrontRequest};

/// The functions of the rows; those of 149 and 150 are called where the others of these rows are named.
pub(crate) const ROWS: &[Code] = &[
    code(143).served(tables),
    code(144).served(records),
    code(147).served(logs),
];

const PAGE: u64 = 4096;

fn region(guest: u64, size: u64, user: u64, offset: u64) -> MemoryRegion {
    MemoryRegion {
        guest,
        size,
        user,
        offset,
    }
}

/// A table as it is sent, whatever it says.
fn table(regions: &[MemoryRegion]) -> Vec<u8> {
    let mut payload = (regions.len() as u64).to_ne_bytes().to_vec();
    for region in regions {
        payload.extend(fields(region));
    }
    payload
}

fn fields(region: &MemoryRegion) -> Vec<u8> {
    let fields = [region.guest, region.size, region.user, region.offset];
    fields.map(u64::to_ne_bytes).concat()
}

/// One region as it is sent.
fn single(region: &MemoryRegion) -> Vec<u8> {
    [&[0; 8][..], &fields(region)].concat()
}

fn tables(s: &mut Socket) {
    let numbers = [FrontRequest::SetMemTable, FrontRequest::AddMemReg].map(|r| r.form().number);
    let [set, add] = numbers;
    // Nothing, and ranges that run past the end of the numbers: of the guest, of the front end, of the file.
    for bad in [
        region(GUEST, 0, USER, 0),
        region(u64::MAX, PAGE, USER, 0),
        region(GUEST, PAGE, u64::MAX - PAGE + 2, 0),
        region(GUEST, PAGE, USER, u64::MAX - 1),
        region(2, u64::MAX, 0, 0),
        region(GUEST, u64::MAX, USER, 0),
    ] {
        for stage in [Stage::Negotiated, Stage::Running] {
            s.attack(stage, Come::CutOff("are no range"), |caller| {
                caller.message(set, &table(&[bad]), 1);
            });
            s.attack(stage, Come::CutOff("are no range"), |caller| {
                caller.message(add, &single(&bad), 1);
            });
        }
    }
    // Two in one table: the same, in part, one in the other, and in the front end's addresses alone.
    let first = region(GUEST, 2 * PAGE, USER, 0);
    for (other, field) in [
        (first, "guest addresses"),
        (
            region(GUEST + PAGE, 2 * PAGE, USER + (1 << 40), 0),
            "guest addresses",
        ),
        (
            region(GUEST - PAGE, 4 * PAGE, USER + (1 << 40), 0),
            "guest addresses",
        ),
        (
            region(GUEST + (1 << 40), PAGE, USER + 2 * PAGE - 1, 0),
            "user addresses",
        ),
    ] {
        for pair in [[first, other], [other, first]] {
            for stage in [Stage::Negotiated, Stage::Running] {
                s.attack(stage, Come::CutOff(field), |caller| {
                    caller.message(set, &table(&pair), 2);
                });
            }
        }
    }
    // One over what is there already.
    for bad in [
        region(GUEST, PAGE, USER + (1 << 40), 0),
        region(GUEST + MEMORY as u64 - 1, PAGE, USER + (1 << 40), 0),
        region(GUEST + (1 << 40), PAGE, USER, 0),
    ] {
        s.attack(Stage::Running, Come::CutOff("overlaps"), |caller| {
            caller.message(add, &single(&bad), 1);
        });
    }
    // One that was never there, or in part, goes.
    for bad in [
        region(SPARE, SPARE_BYTES, USER + (1 << 30), 0),
        region(GUEST, PAGE, USER, 0),
        region(GUEST + PAGE, MEMORY as u64 - PAGE, USER + PAGE, 0),
    ] {
        s.attack(
            Stage::Running,
            Come::CutOff("there is no such memory region"),
            |caller| {
                caller.send(&FrontMessage::RemMemReg(bad));
            },
        );
    }
    // More than there can be, of which each alone is legal.
    s.attack(
        Stage::Negotiated,
        Come::CutOff("which is the most"),
        |caller| {
            for at in 0..600 {
                let region = region(GUEST + at * PAGE, PAGE, USER + at * PAGE, 0);
                let added = FrontMessage::AddMemReg(region, file(PAGE));
                if caller.front.ask(&added).is_err() {
                    return;
                }
            }
        },
    );
    // All memory goes from under queues that run: they cannot be trusted any more, and the server lives.
    s.attack(Stage::Running, Come::Left, |caller| {
        caller.ask(&FrontMessage::SetMemTable(Vec::new()));
        (0..3).for_each(|_| caller.kick());
        let whole = caller.region();
        caller.ask(&FrontMessage::SetMemTable(vec![whole]));
    });
}

fn records(s: &mut Socket) {
    let queues = if s.target.is_net() { 5 } else { 2 };
    let of = |mmap_size, mmap_offset, num_queues, queue_size| Inflight {
        mmap_size,
        mmap_offset,
        num_queues,
        queue_size,
    };
    let each = match s.format {
        Format::Split => 16 + 16 * 16,
        Format::Packed => 32 + 16 * 32,
    };
    // Of no queues, of more than there are, of sizes that no queue has.
    for (num_queues, queue_size) in [
        (0, 16),
        (queues + 1, 16),
        (u16::MAX, 16),
        (1, 0),
        (1, 0xffff),
    ] {
        let asked = of(0, 0, num_queues, queue_size);
        let given = of(1 << 30, 0, num_queues, queue_size);
        for stage in [Stage::Negotiated, Stage::Running] {
            s.attack(stage, Come::CutOff("no record for"), |caller| {
                caller.send(&FrontMessage::GetInflightFd(asked));
            });
            s.attack(stage, Come::CutOff("no record for"), |caller| {
                caller.send(&FrontMessage::SetInflightFd(given, file(1 << 30)));
            });
        }
    }
    // Too short for the records, or for anything.
    for bytes in [0, 1, 16, each - 1, 2 * each - 1] {
        s.attack(Stage::Running, Come::CutOff("which need"), |caller| {
            let given = of(bytes, 0, 2, 16);
            caller.send(&FrontMessage::SetInflightFd(given, file(1 << 20)));
        });
    }
    // Longer than the file, behind its end, past the end of the numbers, and nowhere that a page begins.
    for (given, len) in [
        (of(1 << 20, 0, 2, 16), PAGE),
        (of(u64::MAX, 0, 2, 16), PAGE),
        (of(2 * each, 1 << 20, 2, 16), 1 << 20),
        (of(2 * each, u64::MAX - 1, 2, 16), 1 << 20),
        (of(2 * each, 1, 2, 16), 1 << 20),
        (of(2 * each, 0, 2, 16), 0),
    ] {
        s.attack(
            Stage::Running,
            Come::CutOff("VHOST_USER_SET_INFLIGHT_FD"),
            |caller| {
                caller.send(&FrontMessage::SetInflightFd(given, file(len)));
            },
        );
    }
    // No file at all.
    s.attack(
        Stage::Running,
        Come::CutOff("VHOST_USER_SET_INFLIGHT_FD"),
        |caller| {
            let (read, _write) = pipe();
            caller.send(&FrontMessage::SetInflightFd(of(PAGE, 0, 1, 16), read));
        },
    );
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let (read, write) = std::io::pipe().expect("a pipe");
    (read.into(), write.into())
}

fn logs(s: &mut Socket) {
    let number = FrontRequest::SetLogBase.form().number;
    let log = |size: u64, offset: u64| [size, offset].map(u64::to_ne_bytes).concat();
    // Past the end of the numbers, and nothing.
    for (size, offset) in [
        (PAGE, u64::MAX),
        (PAGE, u64::MAX - PAGE + 2),
        (u64::MAX, 2),
        (u64::MAX, u64::MAX),
        (0, 0),
        (0, u64::MAX),
    ] {
        for stage in [Stage::Negotiated, Stage::Running] {
            s.attack(stage, Come::CutOff("are no range"), |caller| {
                caller.message(number, &log(size, offset), 1);
            });
        }
    }
    // Behind the end of the file, longer than it, in the midst of a page.
    for (size, offset, len) in [
        (1 << 20, 0, PAGE),
        (u64::MAX, 0, PAGE),
        (1 << 20, u64::MAX - (1 << 20) - 1, PAGE),
        (PAGE, 1 << 20, 1 << 20),
        (PAGE, 1, 1 << 20),
    ] {
        s.attack(
            Stage::Running,
            Come::CutOff("VHOST_USER_SET_LOG_BASE"),
            |caller| {
                let log = Log { size, offset };
                caller.send(&FrontMessage::SetLogBase(log, file(len)));
            },
        );
    }
    // Too short for where the guest's memory ends: what is written there has no bit.
    let needed = (GUEST + MEMORY as u64).div_ceil(PAGE).div_ceil(8);
    for size in [1, needed - 1] {
        s.attack(
            Stage::Running,
            Come::CutOff("VHOST_USER_SET_LOG_BASE"),
            |caller| {
                let log = Log { size, offset: 0 };
                caller.send(&FrontMessage::SetLogBase(log, file(1 << 20)));
            },
        );
    }
    // One that is right is used, and cut under the device's hands.
    s.attack(Stage::Running, Come::Left, |caller| {
        let size = needed.next_multiple_of(PAGE);
        let (log, whole) = (Log { size, offset: 0 }, file(size));
        let kept = File::from(whole.try_clone().expect("a descriptor"));
        caller.ask(&FrontMessage::SetLogBase(log, whole));
        let features = caller.features() | F_LOG_ALL;
        caller.ask(&FrontMessage::SetFeatures(features));
        kept.set_len(0).expect("a cut");
        (0..3).for_each(|_| caller.kick());
        caller.ask(&FrontMessage::GetStatus);
    });
}

/// Row 149.
pub(super) fn shorter_than_its_region(s: &mut Socket) {
    for (len, size, offset) in [
        (PAGE, PAGE + 1, 0),
        (PAGE, 2 * PAGE, 0),
        (PAGE, 1 << 40, 0),
        (0, PAGE, 0),
        (PAGE, PAGE, 1),
        (PAGE, PAGE, PAGE),
        (PAGE, 1, PAGE),
        (2 * PAGE, PAGE, 1 << 40),
    ] {
        let bad = region(SPARE, size, USER + (1 << 30), offset);
        for stage in [Stage::Negotiated, Stage::Running] {
            s.attack(stage, Come::CutOff("cannot be used"), |caller| {
                caller.send(&FrontMessage::AddMemReg(bad, file(len)));
            });
            s.attack(stage, Come::CutOff("cannot be used"), |caller| {
                let table = vec![caller.region(), (bad, file(len))];
                caller.send(&FrontMessage::SetMemTable(table));
            });
        }
    }
    // What can be mapped is no file, or one for reading.
    s.attack(Stage::Running, Come::CutOff("cannot be used"), |caller| {
        let (read, _write) = pipe();
        let bad = region(SPARE, PAGE, USER + (1 << 30), 0);
        caller.send(&FrontMessage::AddMemReg(bad, read));
    });
    s.attack(Stage::Running, Come::CutOff("cannot be used"), |caller| {
        let exe = File::open("/proc/self/exe").expect("this program");
        let bad = region(SPARE, PAGE, USER + (1 << 30), 0);
        caller.send(&FrontMessage::AddMemReg(bad, exe.into()));
    });
}

/// Row 150: rings and buffers are in a file that is cut under them.
pub(super) fn cut_under_traffic(s: &mut Socket) {
    let cut = Come::CutOff("was cut");
    // Of two pages that are left, a disk's request needs no other.
    for (left, come) in [(0, cut), (PAGE, cut), (2 * PAGE, Come::Either)] {
        s.attack(Stage::Fresh, come, |caller| {
            let file = caller.use_a_file_that_can_be_cut();
            let mut exchange = caller.set_up();
            exchange.once().expect("a request");
            exchange.post();
            file.set_len(left).expect("a cut");
            caller.kick();
        });
    }
    // The file of a region beside it, of which nothing is used.
    s.attack(Stage::Running, Come::Left, |caller| {
        let (region, spare) = caller.spare();
        let kept = File::from(spare.try_clone().expect("a descriptor"));
        caller.ask(&FrontMessage::AddMemReg(region, spare));
        kept.set_len(0).expect("a cut");
        caller.kick();
        caller.ask(&FrontMessage::RemMemReg(region));
    });
}
