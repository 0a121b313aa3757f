//! The answer to one request: messages, in one datagram or several, to the one that says that this was all.

use std::fmt::Debug;

use netlink_packet_core::{
    NLM_F_DUMP_INTR, NetlinkBuffer, NetlinkMessage, NetlinkPayload, ParseableParametrized,
};
use netlink_packet_generic::{GenlHeader, GenlMessage};
use nix::errno::Errno;

use crate::Error;

/// What has come of it so far.
#[derive(Debug)]
pub(super) struct Answer<F> {
    call: &'static str,
    sequence: u32,
    messages: Vec<GenlMessage<F>>,
    changed: bool,
}

impl<F: ParseableParametrized<[u8], GenlHeader> + Debug> Answer<F> {
    /// One to the request `call` with this number, of which nothing has come.
    pub(super) fn to(call: &'static str, sequence: u32) -> Self {
        Self {
            call,
            sequence,
            messages: Vec::new(),
            changed: false,
        }
    }

    /// Takes in a datagram: whether the kernel has said that this was all.
    ///
    /// # Errors
    /// [`Error::Call`] if it says that the request failed; [`Error::Netlink`] for what cannot be understood.
    pub(super) fn take(&mut self, datagram: &[u8]) -> Result<bool, Error> {
        let undecoded = |source| Error::Netlink {
            command: self.call,
            source,
        };
        let mut rest = datagram;
        while !rest.is_empty() {
            let header = NetlinkBuffer::new_checked(rest).map_err(undecoded)?;
            let whole = rest;
            rest = rest.get(padded(header.length())..).unwrap_or_default();
            if header.sequence_number() != self.sequence {
                // Of a request that was given up on: of another family's too, so that it is not taken apart.
                continue;
            }
            self.changed |= header.flags() & NLM_F_DUMP_INTR != 0;
            let message =
                NetlinkMessage::<GenlMessage<F>>::deserialize(whole).map_err(undecoded)?;
            let code = match message.payload {
                NetlinkPayload::InnerMessage(answer) => {
                    self.messages.push(answer);
                    continue;
                }
                NetlinkPayload::Done(done) => done.code.min(0),
                NetlinkPayload::Error(error) => error.raw_code(),
                _ => continue,
            };
            return if code == 0 {
                Ok(true)
            } else {
                // A code is an errno, negated.
                Err(Error::Call {
                    call: self.call,
                    errno: Errno::from_raw(code.saturating_neg()),
                })
            };
        }
        Ok(false)
    }

    /// What has come; `None` if it is a list of what changed meanwhile, so that it may lack some or have some twice.
    pub(super) fn messages(self) -> Option<Vec<GenlMessage<F>>> {
        (!self.changed).then_some(self.messages)
    }
}

/// Messages of one datagram begin at multiples of four.
fn padded(length: u32) -> usize {
    (length as usize).next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::super::attribute::Attribute;
    use super::super::message::Message;
    use super::super::numbers::VDPA_CMD_DEV_NEW;
    use super::*;

    const MULTI: u16 = 2;
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    const FAMILY: u16 = 30;

    /// As the kernel lays it out: length, type, flags, sequence, port, and what is of the type.
    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend([kind, flags].iter().flat_map(|half| half.to_ne_bytes()));
        bytes.extend([sequence, 0].iter().flat_map(|word| word.to_ne_bytes()));
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// A device called `card`.
    fn card(flags: u16, sequence: u32) -> Vec<u8> {
        let mut payload = vec![VDPA_CMD_DEV_NEW, 1, 0, 0];
        payload.extend([9u16, 4].iter().flat_map(|half| half.to_ne_bytes()));
        payload.extend(b"card\0");
        message(FAMILY, flags, sequence, &payload)
    }

    fn done(flags: u16, sequence: u32) -> Vec<u8> {
        message(DONE, flags, sequence, &0i32.to_ne_bytes())
    }

    /// The code, and the request that it is of.
    fn error(code: i32, sequence: u32) -> Vec<u8> {
        let payload = [&code.to_ne_bytes()[..], &card(0, sequence)[..16]].concat();
        message(ERROR, 0, sequence, &payload)
    }

    fn answer() -> Answer<Message> {
        Answer::to("VDPA_CMD_DEV_GET", 7)
    }

    #[test]
    fn list_is_whole_when_the_kernel_says_so() {
        let mut list = answer();
        assert!(
            !list
                .take(&[card(MULTI, 7), card(MULTI, 7)].concat())
                .unwrap()
        );
        assert!(!list.take(&[]).unwrap());
        assert!(list.take(&done(MULTI, 7)).unwrap());
        let messages = list.messages().unwrap();
        assert_eq!(messages.len(), 2);
        let attributes = &messages[0].payload.attributes;
        assert_eq!(attributes[..], [Attribute::Name("card".into())]);

        let mut one = answer();
        assert!(one.take(&[card(0, 7), error(0, 7)].concat()).unwrap());
        assert_eq!(one.messages().unwrap().len(), 1);
    }

    #[test]
    fn refusal_is_the_kernels_errno() {
        for bytes in [
            error(-17, 7),
            message(DONE, MULTI, 7, &(-17i32).to_ne_bytes()),
        ] {
            let error = answer().take(&bytes).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EEXIST), "{error}");
            assert_eq!(
                error.to_string(),
                format!("VDPA_CMD_DEV_GET: {}", Errno::EEXIST)
            );
        }
    }

    #[test]
    fn stale_answers_that_cannot_be_understood_fail_no_later_request() {
        let stale = message(FAMILY, 0, 6, &[0xff; 12]);
        let mut list = answer();
        assert!(!list.take(&[stale, error(-1, 6)].concat()).unwrap());
        assert!(!list.take(&done(NLM_F_DUMP_INTR, 6)).unwrap());
        assert!(
            list.take(&[card(0, 6), card(0, 7), done(0, 7)].concat())
                .unwrap()
        );
        assert_eq!(list.messages().unwrap().len(), 1);

        let own = message(FAMILY, 0, 7, &[0xff; 12]);
        let error = answer().take(&own).unwrap_err();
        assert!(matches!(error, Error::Netlink { .. }), "{error}");
    }

    #[test]
    fn list_of_what_changed_meanwhile_is_none() {
        for (first, last) in [(NLM_F_DUMP_INTR, 0), (0, NLM_F_DUMP_INTR)] {
            let mut list = answer();
            assert!(
                list.take(&[card(first, 7), card(0, 7), done(last, 7)].concat())
                    .unwrap()
            );
            assert!(list.messages().is_none());
        }
    }

    #[test]
    fn cut_datagrams_are_refused_or_have_no_end() {
        let whole = [card(MULTI, 7), done(MULTI, 7)].concat();
        for len in 0..whole.len() {
            if let Ok(ended) = answer().take(&whole[..len]) {
                assert!(!ended, "{len}");
            }
        }
        for length in 0..16u32 {
            let mut short = card(0, 7);
            short[..4].copy_from_slice(&length.to_ne_bytes());
            answer().take(&short).unwrap_err();
        }
    }
}
