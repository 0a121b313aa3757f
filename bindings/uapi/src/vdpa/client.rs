//! A client: which devices there are, and a device more or less.
#![allow(
    unsafe_code,
    reason = "takes over a descriptor of a socket, which it asks what it is of"
)]

use std::fmt::Debug;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use netlink_packet_core::{
    Emitable, NLA_HEADER_SIZE, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    Nla, ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::libc;

use super::answer::Answer;
use super::attribute::Attribute;
use super::bus::{BusDevice, ManagementDevice, ManagementName};
use super::message::{Command, Message};
use super::numbers::VDPA_GENL_NAME;
use crate::Error;

/// Bytes of a datagram at most, beside what it repeats of the request. The kernel makes none of more than 32 KiB.
const MOST_BYTES: usize = 64 << 10;

/// How often a list is asked for that changes while the kernel tells it.
const TRIES: usize = 8;

/// A socket of the family.
///
/// Making and deleting devices needs `CAP_NET_ADMIN`. All calls wait for the kernel's answer.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    family: u16,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket of this process's network namespace.
    ///
    /// # Errors
    /// [`Error::Call`]; [`Error::NoFamily`] where `vdpa` is not loaded.
    pub fn open() -> Result<Self, Error> {
        Self::with(Socket::new(NETLINK_GENERIC).map_err(|e| refused("socket", &e))?)
    }

    /// Takes over a generic netlink socket, which nobody else reads from.
    ///
    /// # Errors
    /// As for [`open`](Self::open). [`Error::Foreign`] if it is something else, to which nothing is sent.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        generic(&fd)?;
        // SAFETY: the descriptor is open, and owned by the socket alone from here on.
        Self::with(unsafe { Socket::from_raw_fd(fd.into_raw_fd()) })
    }

    fn with(socket: Socket) -> Result<Self, Error> {
        // To the kernel: what others send to this socket is not received.
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(|e| refused("connect", &e))?;
        let mut netlink = Self {
            socket,
            family: 0,
            sequence: 0,
        };
        netlink.family = netlink.resolve()?;
        Ok(netlink)
    }

    /// The number that the family has today.
    fn resolve(&mut self) -> Result<u16, Error> {
        let ask = GenlMessage::from_payload(GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(VDPA_GENL_NAME.into())],
        });
        let answers = match self.exchange("CTRL_CMD_GETFAMILY", ask, NLM_F_ACK) {
            Err(Error::Call {
                errno: Errno::ENOENT,
                ..
            }) => {
                return Err(Error::NoFamily {
                    family: VDPA_GENL_NAME,
                });
            }
            other => other?,
        };
        let attributes = answers.into_iter().flat_map(|answer| answer.payload.nlas);
        let mut numbers = attributes.filter_map(|attribute| match attribute {
            GenlCtrlAttrs::FamilyId(number) => Some(number),
            _ => None,
        });
        numbers.next().ok_or(Error::Answer {
            command: "CTRL_CMD_GETFAMILY",
            lacks: "CTRL_ATTR_FAMILY_ID",
        })
    }

    /// Which management devices there are.
    ///
    /// # Errors
    /// [`Error::Call`]; [`Error::Netlink`] and [`Error::Answer`] for what cannot be understood or is not whole;
    /// [`Error::TooLong`] for an attribute of more than 64 KiB. So all below.
    pub fn management_devices(&mut self) -> Result<Vec<ManagementDevice>, Error> {
        let answers = self.request(Command::MgmtdevGet, Vec::new(), NLM_F_DUMP)?;
        answers.iter().map(ManagementDevice::of).collect()
    }

    /// Which devices there are.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn devices(&mut self) -> Result<Vec<BusDevice>, Error> {
        let answers = self.request(Command::DevGet, Vec::new(), NLM_F_DUMP)?;
        answers.iter().map(BusDevice::of).collect()
    }

    /// Makes a device.
    ///
    /// * `more`: what it is to have: [`Attribute::Mac`], [`Attribute::Mtu`], [`Attribute::QueuePairs`],
    ///   [`Attribute::Features`]
    ///
    /// # Errors
    /// What the kernel says: `EEXIST` for a name that is taken, `ENODEV` without such a management device, `EOPNOTSUPP` for
    /// an attribute that it has not.
    pub fn add(
        &mut self,
        name: &str,
        from: &ManagementName,
        more: &[Attribute],
    ) -> Result<(), Error> {
        let mut attributes = vec![Attribute::Name(name.into())];
        attributes.extend(from.bus.clone().map(Attribute::ManagementBus));
        attributes.push(Attribute::ManagementDevice(from.device.clone()));
        attributes.extend_from_slice(more);
        self.request(Command::DevNew, attributes, NLM_F_ACK)
            .map(drop)
    }

    /// Deletes a device. Waits until nobody has it open, in this process neither.
    ///
    /// # Errors
    /// What the kernel says: `ENODEV` if there is none, `EBUSY` or `EINVAL` if it was not made by [`add`](Self::add).
    pub fn delete(&mut self, name: &str) -> Result<(), Error> {
        let attributes = vec![Attribute::Name(name.into())];
        self.request(Command::DevDel, attributes, NLM_F_ACK)
            .map(drop)
    }

    /// Changes a device: [`Attribute::Mac`]. Linux 6.12.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` where the device's driver cannot.
    pub fn change(&mut self, name: &str, to: &[Attribute]) -> Result<(), Error> {
        let mut attributes = vec![Attribute::Name(name.into())];
        attributes.extend_from_slice(to);
        self.request(Command::DevAttrSet, attributes, NLM_F_ACK)
            .map(drop)
    }

    /// What the driver sees of a device: its name and type, features that were accepted, and what the type has in its
    /// configuration space. Linux 5.16.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` for a device type that it cannot tell of.
    pub fn config(&mut self, name: &str) -> Result<Vec<Attribute>, Error> {
        self.one(Command::DevConfigGet, vec![Attribute::Name(name.into())])
    }

    /// The vendor's counters of a queue, by name. Linux 5.19.
    ///
    /// # Errors
    /// What the kernel says: `EOPNOTSUPP` where the device's driver has none. [`Error::Answer`] for a counter without a name,
    /// and a name without one.
    pub fn vendor_counters(&mut self, name: &str, queue: u32) -> Result<Vec<(String, u64)>, Error> {
        let about = vec![Attribute::Name(name.into()), Attribute::QueueIndex(queue)];
        counters(self.one(Command::DevVstatsGet, about)?)
    }

    fn one(
        &mut self,
        command: Command,
        attributes: Vec<Attribute>,
    ) -> Result<Vec<Attribute>, Error> {
        let answers = self.request(command, attributes, NLM_F_ACK)?;
        answers
            .into_iter()
            .next()
            .map(|answer| answer.attributes)
            .ok_or(Error::Answer {
                command: command.name(),
                lacks: "a message",
            })
    }

    /// Makes a request of the family's, and waits for all of the answer.
    fn request(
        &mut self,
        command: Command,
        attributes: Vec<Attribute>,
        flags: u16,
    ) -> Result<Vec<Message>, Error> {
        fit(command.name(), &attributes)?;
        let mut ask = GenlMessage::from_payload(Message {
            command,
            attributes,
        });
        ask.set_resolved_family_id(self.family);
        let answers = self.exchange(command.name(), ask, flags)?;
        Ok(answers.into_iter().map(|answer| answer.payload).collect())
    }

    /// Makes a request, and waits for all of the answer: again, if it is a list of what changes meanwhile.
    fn exchange<F>(
        &mut self,
        call: &'static str,
        ask: GenlMessage<F>,
        flags: u16,
    ) -> Result<Vec<GenlMessage<F>>, Error>
    where
        F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + Debug,
    {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, ask.into());
        for _ in 0..TRIES {
            self.sequence = self.sequence.wrapping_add(1);
            message.header.sequence_number = self.sequence;
            message.finalize();
            let mut bytes = vec![0; message.buffer_len()];
            message.serialize(&mut bytes);
            self.socket.send(&bytes, 0).map_err(|e| refused(call, &e))?;

            let mut answer = Answer::to(call, self.sequence);
            while !answer.take(&self.receive(call, bytes.len())?)? {}
            if let Some(messages) = answer.messages() {
                return Ok(messages);
            }
        }
        Err(Error::Answer {
            command: call,
            lacks: "what changed while it was told, each time that it was asked for",
        })
    }

    /// Waits for a datagram, which may repeat `asked` bytes of the request.
    fn receive(&self, call: &'static str, asked: usize) -> Result<Vec<u8>, Error> {
        let lacks = |lacks| Error::Answer {
            command: call,
            lacks,
        };
        let mut bytes = Vec::with_capacity(MOST_BYTES.saturating_add(asked));
        let len = self.socket.recv(&mut bytes, libc::MSG_TRUNC);
        match len.map_err(|e| refused(call, &e))? {
            0 => Err(lacks("an end")),
            len if len > bytes.len() => Err(lacks("what is beyond the longest datagram")),
            _ => Ok(bytes),
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn refused(call: &'static str, error: &std::io::Error) -> Error {
    Error::Call {
        call,
        errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)),
    }
}

/// Makes sure that it is a socket of generic netlink: what asks something there changes something by another protocol.
fn generic(fd: &OwnedFd) -> Result<(), Error> {
    for (call, option, wanted, otherwise) in [
        (
            "getsockopt SO_DOMAIN",
            libc::SO_DOMAIN,
            libc::AF_NETLINK,
            Errno::EAFNOSUPPORT,
        ),
        (
            "getsockopt SO_PROTOCOL",
            libc::SO_PROTOCOL,
            libc::NETLINK_GENERIC,
            Errno::EPROTONOSUPPORT,
        ),
    ] {
        let mut said: libc::c_int = 0;
        let mut len = size_of_val(&said) as libc::socklen_t;
        // SAFETY: the kernel writes no more than `len` bytes, which are those of `said`, and both live on.
        let done = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw mut said).cast(),
                &raw mut len,
            )
        };
        let fits = match Errno::result(done) {
            Ok(_) if said == wanted => Ok(()),
            Ok(_) => Err(otherwise),
            Err(errno) => Err(errno),
        };
        fits.map_err(|errno| Error::Foreign {
            fd: fd.as_raw_fd(),
            what: "generic netlink socket",
            call,
            errno,
        })?;
    }
    Ok(())
}

/// Makes sure that attributes can say how long they are.
fn fit(call: &'static str, attributes: &[Attribute]) -> Result<(), Error> {
    const MOST: usize = u16::MAX as usize - NLA_HEADER_SIZE;
    let mut lengths = attributes.iter().map(Nla::value_len);
    match lengths.find(|len| *len > MOST) {
        Some(len) => Err(Error::TooLong {
            call,
            len,
            most: MOST,
        }),
        None => Ok(()),
    }
}

/// Counters, each with the name that comes before it.
fn counters(attributes: Vec<Attribute>) -> Result<Vec<(String, u64)>, Error> {
    let lacks = |lacks| Error::Answer {
        command: Command::DevVstatsGet.name(),
        lacks,
    };
    let (mut counters, mut called) = (Vec::new(), None);
    for attribute in attributes {
        match attribute {
            Attribute::VendorName(name) if called.is_none() => called = Some(name),
            Attribute::VendorName(_) => return Err(lacks("VDPA_ATTR_DEV_VENDOR_ATTR_VALUE")),
            Attribute::VendorValue(value) => {
                let name = called.take();
                counters.push((
                    name.ok_or_else(|| lacks("VDPA_ATTR_DEV_VENDOR_ATTR_NAME"))?,
                    value,
                ));
            }
            _ => {}
        }
    }
    match called {
        Some(_) => Err(lacks("VDPA_ATTR_DEV_VENDOR_ATTR_VALUE")),
        None => Ok(counters),
    }
}

#[cfg(test)]
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;

    /// The host's own kernel: it has generic netlink, and the family where `vdpa` is loaded.
    #[test]
    fn kernel_has_the_family_or_says_so() {
        match Netlink::open() {
            Ok(mut netlink) => {
                netlink.management_devices().unwrap();
                netlink.devices().unwrap();
                let error = netlink.delete("no such device").unwrap_err();
                assert!(
                    matches!(error.errno(), Some(Errno::ENODEV | Errno::EPERM)),
                    "{error}"
                );
            }
            Err(Error::NoFamily { .. }) => {}
            // Where a container's rules let no such socket through.
            Err(Error::Call {
                call: "socket",
                errno: Errno::EPERM | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT,
            }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    /// To a socket of routes the first question would be a request to change a link.
    #[test]
    fn socket_of_another_protocol_is_refused_before_anything_is_sent() {
        let Ok(routes) = Socket::new(NETLINK_ROUTE) else {
            return;
        };
        let routes = routes.as_fd().try_clone_to_owned().unwrap();
        let error = Netlink::from_fd(routes).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Foreign {
                    call: "getsockopt SO_PROTOCOL",
                    errno: Errno::EPROTONOSUPPORT,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn socket_that_is_handed_over_serves_as_one_of_its_own() {
        let Ok(socket) = Socket::new(NETLINK_GENERIC) else {
            return;
        };
        let socket = socket.as_fd().try_clone_to_owned().unwrap();
        match Netlink::from_fd(socket) {
            Ok(_) | Err(Error::NoFamily { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn counters_have_a_name_each() {
        let name = |name: &str| Attribute::VendorName(name.into());
        let value = Attribute::VendorValue;
        let two = vec![
            Attribute::QueueIndex(1),
            name("a"),
            value(1),
            name("b"),
            value(2),
        ];
        let expected = [("a".to_owned(), 1), ("b".to_owned(), 2)];
        assert_eq!(counters(two).unwrap(), expected);
        for (attributes, lacks) in [
            (vec![name("a"), value(1), value(2)], "VENDOR_ATTR_NAME"),
            (vec![name("a"), name("b"), value(2)], "VENDOR_ATTR_VALUE"),
            (vec![name("a")], "VENDOR_ATTR_VALUE"),
        ] {
            let said = counters(attributes).unwrap_err().to_string();
            assert!(said.ends_with(lacks), "{said}");
        }
    }

    #[test]
    fn names_that_an_attribute_cannot_hold_are_refused() {
        let named = |len| {
            fit(
                "call",
                &[Attribute::Mtu(1), Attribute::Name("x".repeat(len))],
            )
        };
        named(65_530).unwrap();
        let said = named(65_531).unwrap_err().to_string();
        assert!(
            said.contains("65532 bytes") && said.contains("65531"),
            "{said}"
        );
    }
}
