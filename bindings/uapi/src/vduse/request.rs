//! What the kernel asks a device, and what it is answered: read from and written to `/dev/vduse/NAME`.

use std::mem::offset_of;

use super::numbers::*;
use crate::Error;

const WHAT: &str = "VDUSE request";

/// What the kernel asks. It waits for the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Its number, which the answer has too.
    pub id: u32,
    /// What is asked.
    pub what: What,
}

/// What is asked, or told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum What {
    /// Where a queue stands. The answer has it.
    QueueState {
        /// The queue.
        queue: u32,
    },
    /// The driver has set the device status; 0 is a reset.
    Status {
        /// The status.
        status: u8,
    },
    /// Mappings have changed: what was got by `VDUSE_IOTLB_GET_FD` is void.
    Iotlb {
        /// The address space; 0 before Linux 7.0.
        asid: u32,
        /// The first address.
        start: u64,
        /// The last one.
        last: u64,
    },
    /// A group has another address space. Linux 7.0.
    GroupAsid {
        /// The group.
        group: u32,
        /// The address space.
        asid: u32,
    },
}

/// Where a queue stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueState {
    /// Split: the next available index.
    Split(u16),
    /// Packed: both rings', with their wrap counters.
    Packed(vduse_vq_state_packed),
}

/// Where the union begins.
const UNION: usize = offset_of!(vduse_dev_request, iova);
const STATE: usize = offset_of!(vduse_dev_response, vq_state);

impl Request {
    /// How many bytes one has.
    pub(super) const BYTES: usize = size_of::<vduse_dev_request>();

    /// From what was read.
    ///
    /// # Errors
    /// [`Error::Short`]; [`Error::Unknown`] for a type that came later.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() < Self::BYTES {
            return Err(short(bytes));
        }
        let word = |at: usize| {
            take(bytes, at)
                .map(u32::from_ne_bytes)
                .ok_or_else(|| short(bytes))
        };
        let long = |at: usize| {
            take(bytes, at)
                .map(u64::from_ne_bytes)
                .ok_or_else(|| short(bytes))
        };
        let inside = |at: usize| UNION.saturating_add(at);
        let what = match word(offset_of!(vduse_dev_request, r#type))? {
            VDUSE_GET_VQ_STATE => What::QueueState {
                queue: word(inside(offset_of!(vduse_vq_state, index)))?,
            },
            VDUSE_SET_STATUS => What::Status {
                status: take(bytes, inside(offset_of!(vduse_dev_status, status)))
                    .map(u8::from_ne_bytes)
                    .ok_or_else(|| short(bytes))?,
            },
            VDUSE_UPDATE_IOTLB => What::Iotlb {
                asid: word(inside(offset_of!(vduse_iova_range_v2, asid)))?,
                start: long(inside(offset_of!(vduse_iova_range_v2, start)))?,
                last: long(inside(offset_of!(vduse_iova_range_v2, last)))?,
            },
            VDUSE_SET_VQ_GROUP_ASID => What::GroupAsid {
                group: word(inside(offset_of!(vduse_vq_group_asid, group)))?,
                asid: word(inside(offset_of!(vduse_vq_group_asid, asid)))?,
            },
            other => {
                return Err(Error::Unknown {
                    what: WHAT,
                    field: "type",
                    value: other.into(),
                });
            }
        };
        Ok(Self {
            id: word(offset_of!(vduse_dev_request, request_id))?,
            what,
        })
    }

    /// An answer, as it is written.
    ///
    /// * `done`: whether the device did what it was asked for
    /// * `state`: for [`What::QueueState`], where the queue stands
    pub fn answer(
        &self,
        done: bool,
        state: Option<QueueState>,
    ) -> [u8; size_of::<vduse_dev_response>()] {
        let mut bytes = [0; size_of::<vduse_dev_response>()];
        let result = if done {
            VDUSE_REQ_RESULT_OK
        } else {
            VDUSE_REQ_RESULT_FAILED
        };
        put(
            &mut bytes,
            offset_of!(vduse_dev_response, request_id),
            &self.id.to_ne_bytes(),
        );
        put(
            &mut bytes,
            offset_of!(vduse_dev_response, result),
            &result.to_ne_bytes(),
        );
        if let (What::QueueState { queue }, Some(state)) = (self.what, state) {
            let at = |field: usize| STATE.saturating_add(field);
            put(
                &mut bytes,
                at(offset_of!(vduse_vq_state, index)),
                &queue.to_ne_bytes(),
            );
            put(
                &mut bytes,
                at(offset_of!(vduse_vq_state, packed)),
                &state.bytes(),
            );
        }
        bytes
    }
}

impl QueueState {
    /// As both members of the union lie in memory.
    fn bytes(self) -> [u8; size_of::<vduse_vq_state_packed>()] {
        let mut bytes = [0; size_of::<vduse_vq_state_packed>()];
        let words = match self {
            Self::Split(avail) => [avail, 0, 0, 0],
            Self::Packed(state) => [
                state.last_avail_counter,
                state.last_avail_idx,
                state.last_used_counter,
                state.last_used_idx,
            ],
        };
        for (to, from) in bytes
            .iter_mut()
            .zip(words.into_iter().flat_map(u16::to_ne_bytes))
        {
            *to = from;
        }
        bytes
    }
}

fn short(bytes: &[u8]) -> Error {
    Error::Short {
        what: WHAT,
        len: bytes.len(),
        least: Request::BYTES,
    }
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value) {
        *to = *from;
    }
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: u32, id: u32, union: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; Request::BYTES];
        put(&mut bytes, 0, &kind.to_ne_bytes());
        put(&mut bytes, 4, &id.to_ne_bytes());
        put(&mut bytes, UNION, union);
        bytes
    }

    #[test]
    fn requests_say_what_the_kernel_put_in() {
        let words =
            |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_ne_bytes()).collect() };
        let cases = [
            (
                VDUSE_GET_VQ_STATE,
                words(&[5]),
                What::QueueState { queue: 5 },
            ),
            (VDUSE_SET_STATUS, vec![0xf], What::Status { status: 15 }),
            (
                VDUSE_SET_VQ_GROUP_ASID,
                words(&[1, 2]),
                What::GroupAsid { group: 1, asid: 2 },
            ),
        ];
        for (kind, union, what) in cases {
            assert_eq!(
                Request::decode(&request(kind, 9, &union)).unwrap(),
                Request { id: 9, what }
            );
        }
        let mut union = 0x1000u64.to_ne_bytes().to_vec();
        union.extend(0x1fffu64.to_ne_bytes());
        union.extend(4u32.to_ne_bytes());
        let found = Request::decode(&request(VDUSE_UPDATE_IOTLB, 1, &union)).unwrap();
        let what = What::Iotlb {
            asid: 4,
            start: 0x1000,
            last: 0x1fff,
        };
        assert_eq!(found.what, what);
    }

    #[test]
    fn cut_or_senseless_requests_are_refused() {
        let whole = request(VDUSE_SET_STATUS, 1, &[1]);
        for len in 0..whole.len() {
            assert!(
                matches!(Request::decode(&whole[..len]), Err(Error::Short { .. })),
                "{len}"
            );
        }
        let error = Request::decode(&request(4, 1, &[])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a VDUSE request with type 4, which has no meaning"
        );
    }

    #[test]
    fn answers_have_a_state_only_where_one_was_asked_for() {
        let asked = Request {
            id: 7,
            what: What::QueueState { queue: 2 },
        };
        let bytes = asked.answer(true, Some(QueueState::Split(0x1234)));
        assert_eq!(bytes[..8], [7u32, 0].map(u32::to_ne_bytes).concat()[..]);
        assert_eq!(bytes[24..28], 2u32.to_ne_bytes());
        assert_eq!(bytes[28..30], 0x1234u16.to_ne_bytes());
        assert_eq!(bytes[30..], [0; 122]);
        let told = Request {
            what: What::Status { status: 1 },
            ..asked
        };
        let bytes = told.answer(false, Some(QueueState::Split(1)));
        assert_eq!(bytes[4..8], 1u32.to_ne_bytes());
        assert_eq!(bytes[8..], [0; 144]);
    }
}
