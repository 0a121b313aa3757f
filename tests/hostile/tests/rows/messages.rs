//! Section M: single messages of a front end that are wrong.

use vdpa_hostile::socket::{Caller, Come, Socket, Stage};
use vdpa_hostile::suite::{Code, code};
use vdpa_vhost_user::payload::{VringAddr, VringFlags, VringState};
use vdpa_vhost_user::{FrontMessage, FrontRequest, Header, MAX_PAYLOAD, PayloadForm};

/// The functions of the rows.
pub(crate) const ROWS: &[Code] = &[
    code(138).served(counts_of_descriptors),
    code(140).served(oversized),
    code(141).served(unknown),
    code(142).served(cut_indices),
    code(146).served(descriptors_for_none),
];

/// A queue that is there, and that nothing breaks.
const QUEUE: u32 = 0;

/// A payload of the right length that says little.
fn payload(request: FrontRequest) -> Vec<u8> {
    let len = match request.form().payload {
        PayloadForm::Nothing | PayloadForm::Opaque => 0,
        PayloadForm::VringAddr | PayloadForm::Region => 40,
        // A table without regions.
        PayloadForm::Memory => 8,
        PayloadForm::Log | PayloadForm::Uuid => 16,
        PayloadForm::Iotlb => 32,
        PayloadForm::Config => 12,
        PayloadForm::Area | PayloadForm::Inflight => 24,
        _ => 8,
    };
    vec![0; len]
}

/// All requests that this server could take apart, from either stage.
fn each(s: &mut Socket, mut act: impl FnMut(&mut Socket, Stage, FrontRequest)) {
    for request in FrontRequest::ALL {
        for stage in [Stage::Fresh, Stage::Running] {
            act(s, stage, *request);
        }
    }
}

fn counts_of_descriptors(s: &mut Socket) {
    each(s, |s, stage, request| {
        let form = request.form();
        if form.most_fds == 0 {
            // Row 146.
            return;
        }
        for count in [0, 1, 9] {
            let legal = (form.least_fds..=form.most_fds).contains(&count);
            // A table takes one for each of its regions, of which this one has none; what a flag says is not there
            // is there or not.
            let wrong = match request {
                FrontRequest::SetMemTable => count != 0,
                FrontRequest::SetVringKick
                | FrontRequest::SetVringCall
                | FrontRequest::SetVringErr => count != 1,
                _ => !legal,
            };
            if wrong {
                s.attack(stage, Come::CutOff("file descriptors"), |caller| {
                    caller.message(form.number, &payload(request), count);
                });
            }
        }
    });
    // As many as the kernel passes on.
    s.attack(
        Stage::Running,
        Come::CutOff("253 file descriptors"),
        |caller| {
            caller.message(FrontRequest::SetMemTable.form().number, &[0; 8], 253);
        },
    );
    // One too few, and one too many, for a table of two.
    for count in [1, 3] {
        s.attack(
            Stage::Negotiated,
            Come::CutOff("file descriptors: it takes 2"),
            |caller| {
                let (first, _) = caller.region();
                let (second, _) = caller.spare();
                let mut payload = 2_u64.to_ne_bytes().to_vec();
                for region in [first, second] {
                    for field in [region.guest, region.size, region.user, region.offset] {
                        payload.extend(field.to_ne_bytes());
                    }
                }
                caller.message(FrontRequest::SetMemTable.form().number, &payload, count);
            },
        );
    }
}

fn descriptors_for_none(s: &mut Socket) {
    each(s, |s, stage, request| {
        let form = request.form();
        if form.most_fds > 0 {
            return;
        }
        for count in [1, 8] {
            s.attack(
                stage,
                Come::CutOff("file descriptors: it takes none"),
                |caller| {
                    caller.message(form.number, &payload(request), count);
                },
            );
        }
    });
    // Some front ends send the file of a region that goes: it is closed, and they are served.
    s.attack(Stage::Negotiated, Come::Left, |caller| {
        let (region, fd) = caller.spare();
        caller.ask(&FrontMessage::AddMemReg(region, fd));
        let payload = FrontMessage::RemMemReg(region).encode().payload;
        caller.message(FrontRequest::RemMemReg.form().number, &payload, 1);
        acknowledged(caller);
    });
}

/// The acknowledgement of a message that was sent by hand.
fn acknowledged(caller: &mut Caller) {
    let frame = caller.front.connection_mut().receive(None);
    let frame = frame.expect("an acknowledgement");
    assert_eq!(frame.payload, 0_u64.to_ne_bytes(), "{:?}", frame.header);
}

fn oversized(s: &mut Socket) {
    // By the header alone: what it announces is not waited for.
    for stage in [Stage::Fresh, Stage::Running] {
        for size in [MAX_PAYLOAD as u32 + 1, 1 << 20, 1 << 31, u32::MAX] {
            for request in [FrontRequest::SetMemTable, FrontRequest::GetFeatures] {
                s.attack(stage, Come::CutOff("announces a payload of"), |caller| {
                    let header = Header::request(request.form().number, true, size);
                    caller.bytes(&header.encode(), &[]);
                });
            }
        }
    }
    // Longer, or shorter, than this message has it.
    each(s, |s, stage, request| {
        let form = request.form();
        let right = payload(request);
        for len in [0, right.len() + 1, right.len() + 8, 300, MAX_PAYLOAD] {
            let with_fd = usize::from(form.least_fds > 0);
            if !form.payload.takes(len) {
                s.attack(stage, Come::CutOff("with a payload of"), |caller| {
                    let mut payload = right.clone();
                    payload.resize(len, 0);
                    caller.message(form.number, &payload, with_fd);
                });
            }
        }
    });
    // More regions than the payload has, or than a table can have.
    for count in [1, 8, 9, u32::MAX] {
        s.attack(
            Stage::Running,
            Come::CutOff("VHOST_USER_SET_MEM_TABLE"),
            |caller| {
                let payload = u64::from(count).to_ne_bytes();
                caller.message(FrontRequest::SetMemTable.form().number, &payload, 1);
            },
        );
    }
    // A configuration that is longer than what it is in.
    for size in [1, 257, u32::MAX] {
        s.attack(
            Stage::Running,
            Come::CutOff("VHOST_USER_SET_CONFIG"),
            |caller| {
                let payload = [0, size, 0].map(u32::to_ne_bytes).concat();
                caller.message(FrontRequest::SetConfig.form().number, &payload, 0);
            },
        );
    }
}

fn unknown(s: &mut Socket) {
    let last = FrontRequest::ALL.len() as u32;
    for stage in [Stage::Fresh, Stage::Running] {
        for number in [0, last + 1, last + 2, 255, 0x1_0001, 1 << 31, u32::MAX] {
            for (len, fds) in [(0, 0), (8, 0), (MAX_PAYLOAD, 8)] {
                s.attack(
                    stage,
                    Come::CutOff("is no request of a front end"),
                    |caller| {
                        caller.message(number, &vec![0xa5; len], fds);
                    },
                );
            }
        }
    }
    // Replies that nobody asked for, versions and flags that there are not.
    let odd = [
        (0x5, "make it a reply"),
        (0x11, "are not defined"),
        (0x8000_0001, "are not defined"),
        (0x0, "has version 0"),
        (0x2, "has version 2"),
        (0x3, "has version 3"),
    ];
    for (flags, why) in odd {
        for stage in [Stage::Fresh, Stage::Running] {
            s.attack(stage, Come::CutOff(why), |caller| {
                let header = Header {
                    request: 1,
                    flags,
                    size: 0,
                };
                caller.bytes(&header.encode(), &[]);
            });
        }
    }
}

fn cut_indices(s: &mut Socket) {
    for index in [
        0x1_0000,
        0x1_0001,
        0x1_0000 | QUEUE,
        1 << 31,
        u32::MAX,
        256,
        77,
    ] {
        let state = |num| VringState { index, num };
        let addr = VringAddr {
            index,
            flags: VringFlags::empty(),
            descriptor: 0,
            used: 0,
            available: 0,
            log: 0,
        };
        for message in [
            FrontMessage::SetVringNum(state(16)),
            FrontMessage::SetVringBase(state(0)),
            FrontMessage::SetVringAddr(addr),
            FrontMessage::SetVringEnable(state(1)),
            FrontMessage::GetVringBase(state(0)),
        ] {
            for stage in [Stage::Negotiated, Stage::Running] {
                s.attack(stage, Come::CutOff("there is no queue"), |caller| {
                    caller.send(&message);
                });
            }
        }
    }
    // Of a kick's index there are eight bits, and a flag.
    let kicks = [
        FrontRequest::SetVringKick,
        FrontRequest::SetVringCall,
        FrontRequest::SetVringErr,
    ];
    for request in kicks {
        for value in [0x1_0001, 0x200, 0x1_0101, 1 << 32, u64::MAX] {
            s.attack(Stage::Running, Come::CutOff("index is"), |caller| {
                caller.message(request.form().number, &value.to_ne_bytes(), 1);
            });
        }
    }
    // A queue that the device has not: whoever names its call alone is let be, since one front end names all it has room
    // for.
    for (request, come) in [
        (
            FrontRequest::SetVringKick,
            Come::CutOff("there is no queue 255"),
        ),
        (
            FrontRequest::SetVringErr,
            Come::CutOff("there is no queue 255"),
        ),
        (FrontRequest::SetVringCall, Come::Left),
    ] {
        s.attack(Stage::Running, come, |caller| {
            caller.message(request.form().number, &255_u64.to_ne_bytes(), 1);
            if come == Come::Left {
                acknowledged(caller);
            }
        });
    }
    // Sizes that are cut to a legal one in 16 bits.
    for num in [0x1_0010, 0, 0xffff, u32::MAX] {
        s.attack(
            Stage::Negotiated,
            Come::CutOff("VHOST_USER_SET_VRING_NUM"),
            |caller| {
                caller.send(&FrontMessage::SetVringNum(VringState { index: QUEUE, num }));
            },
        );
    }
}
