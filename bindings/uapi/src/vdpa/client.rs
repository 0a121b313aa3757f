//! A client: which devices there are, and a device more or less.
#![allow(unsafe_code, reason = "takes over a descriptor of a socket")]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_generic::GenlMessage;
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_sys::protocols::NETLINK_GENERIC;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use super::attribute::Attribute;
use super::message::{Command, Message};
use super::numbers::VDPA_GENL_NAME;
use crate::Error;

/// A socket of the family.
///
/// Making and deleting devices needs `CAP_NET_ADMIN`. All calls wait for the kernel's answer.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    family: u16,
    sequence: u32,
}

/// How a management device is called.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ManagementName {
    /// Its bus, `pci` say, where it has one.
    pub bus: Option<String>,
    /// Its name on that.
    pub device: String,
}

/// What makes devices: a parent driver's function, or `vduse`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManagementDevice {
    /// How it is called.
    pub name: ManagementName,
    /// Bits, each of a virtio device type that it makes.
    pub classes: u64,
    /// How many queues it gives a device. Linux 5.17.
    pub max_queues: Option<u32>,
    /// Features that it has for devices. Linux 5.17.
    pub features: Option<u64>,
}

/// A device on the vDPA bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BusDevice {
    /// Its name.
    pub name: String,
    /// What made it.
    pub management: ManagementName,
    /// The virtio device type.
    pub device_id: u32,
    /// The vendor.
    pub vendor_id: u32,
    /// How many queues it has.
    pub max_queues: u32,
    /// How large they may be.
    pub max_queue_size: u16,
    /// How small they may be. Linux 5.16.
    pub min_queue_size: Option<u16>,
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
    /// As for [`open`](Self::open): what is no such socket is refused by the first call.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
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
    /// [`Error::Call`]; [`Error::Netlink`] and [`Error::Answer`] for what cannot be understood. So all below.
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
    /// What the kernel says: `EOPNOTSUPP` where the device's driver has none.
    pub fn vendor_counters(&mut self, name: &str, queue: u32) -> Result<Vec<(String, u64)>, Error> {
        let about = vec![Attribute::Name(name.into()), Attribute::QueueIndex(queue)];
        let attributes = self.one(Command::DevVstatsGet, about)?;
        let mut counters = Vec::new();
        let mut called = None;
        for attribute in attributes {
            match attribute {
                Attribute::VendorName(name) => called = Some(name),
                Attribute::VendorValue(value) => {
                    counters.extend(called.take().map(|name| (name, value)))
                }
                _ => {}
            }
        }
        Ok(counters)
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
        let mut ask = GenlMessage::from_payload(Message {
            command,
            attributes,
        });
        ask.set_resolved_family_id(self.family);
        let answers = self.exchange(command.name(), ask, flags)?;
        Ok(answers.into_iter().map(|answer| answer.payload).collect())
    }

    /// Sends, and receives until the kernel has said that it is done: with an error that is 0, or with the end of a list.
    fn exchange<F>(
        &mut self,
        call: &'static str,
        ask: GenlMessage<F>,
        flags: u16,
    ) -> Result<Vec<GenlMessage<F>>, Error>
    where
        GenlMessage<F>:
            NetlinkSerializable + NetlinkDeserializable + Into<NetlinkPayload<GenlMessage<F>>>,
    {
        let undecoded = |source| Error::Netlink {
            family: VDPA_GENL_NAME,
            source,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, ask.into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map_err(|e| refused(call, &e))?;

        let mut answers = Vec::new();
        loop {
            let (received, _) = self
                .socket
                .recv_from_full()
                .map_err(|e| refused(call, &e))?;
            let mut rest = received.as_slice();
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<GenlMessage<F>>::deserialize(rest).map_err(undecoded)?;
                rest = rest
                    .get(padded(message.header.length)..)
                    .unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    // Of a request that was given up on.
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(said(call, done.code));
                    }
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.raw_code() != 0 => {
                        return Err(said(call, error.raw_code()));
                    }
                    NetlinkPayload::Error(_) => return Ok(answers),
                    _ => {}
                }
            }
            if received.is_empty() {
                return Err(Error::Answer {
                    command: call,
                    lacks: "an end",
                });
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl ManagementDevice {
    fn of(message: &Message) -> Result<Self, Error> {
        Ok(Self {
            name: ManagementName::of(message)?,
            classes: find(message, |a| {
                if let Attribute::Classes(bits) = a {
                    Some(*bits)
                } else {
                    None
                }
            })
            .unwrap_or(0),
            max_queues: find(message, |a| {
                if let Attribute::ManagementMaxQueues(n) = a {
                    Some(*n)
                } else {
                    None
                }
            }),
            features: find(message, |a| {
                if let Attribute::SupportedFeatures(bits) = a {
                    Some(*bits)
                } else {
                    None
                }
            }),
        })
    }
}

impl ManagementName {
    fn of(message: &Message) -> Result<Self, Error> {
        let device = find(message, |a| {
            if let Attribute::ManagementDevice(name) = a {
                Some(name.clone())
            } else {
                None
            }
        });
        Ok(Self {
            bus: find(message, |a| {
                if let Attribute::ManagementBus(name) = a {
                    Some(name.clone())
                } else {
                    None
                }
            }),
            device: device.ok_or_else(|| lacks(message, "VDPA_ATTR_MGMTDEV_DEV_NAME"))?,
        })
    }
}

impl BusDevice {
    fn of(message: &Message) -> Result<Self, Error> {
        let name = find(message, |a| {
            if let Attribute::Name(name) = a {
                Some(name.clone())
            } else {
                None
            }
        });
        let id = find(message, |a| {
            if let Attribute::DeviceId(n) = a {
                Some(*n)
            } else {
                None
            }
        });
        let queues = find(message, |a| {
            if let Attribute::MaxQueues(n) = a {
                Some(*n)
            } else {
                None
            }
        });
        let size = find(message, |a| {
            if let Attribute::MaxQueueSize(n) = a {
                Some(*n)
            } else {
                None
            }
        });
        Ok(Self {
            name: name.ok_or_else(|| lacks(message, "VDPA_ATTR_DEV_NAME"))?,
            management: ManagementName::of(message)?,
            device_id: id.ok_or_else(|| lacks(message, "VDPA_ATTR_DEV_ID"))?,
            vendor_id: find(message, |a| {
                if let Attribute::VendorId(n) = a {
                    Some(*n)
                } else {
                    None
                }
            })
            .unwrap_or(0),
            max_queues: queues.ok_or_else(|| lacks(message, "VDPA_ATTR_DEV_MAX_VQS"))?,
            max_queue_size: size.ok_or_else(|| lacks(message, "VDPA_ATTR_DEV_MAX_VQ_SIZE"))?,
            min_queue_size: find(message, |a| {
                if let Attribute::MinQueueSize(n) = a {
                    Some(*n)
                } else {
                    None
                }
            }),
        })
    }
}

fn find<T>(message: &Message, of: impl FnMut(&Attribute) -> Option<T>) -> Option<T> {
    message.attributes.iter().find_map(of)
}

fn lacks(message: &Message, lacks: &'static str) -> Error {
    Error::Answer {
        command: message.command.name(),
        lacks,
    }
}

fn refused(call: &'static str, error: &std::io::Error) -> Error {
    Error::Call {
        call,
        errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)),
    }
}

/// A code is an errno, negated.
fn said(call: &'static str, code: i32) -> Error {
    Error::Call {
        call,
        errno: Errno::from_raw(code.saturating_neg()),
    }
}

/// Messages of one datagram begin at multiples of four.
fn padded(length: u32) -> usize {
    (length as usize).next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(attributes: &[Attribute]) -> Message {
        Message {
            command: Command::DevNew,
            attributes: attributes.to_vec(),
        }
    }

    #[test]
    fn device_lacks_what_the_kernel_did_not_say() {
        let whole = [
            Attribute::Name("card".into()),
            Attribute::ManagementDevice("vduse".into()),
            Attribute::DeviceId(1),
            Attribute::MaxQueues(2),
            Attribute::MaxQueueSize(256),
        ];
        let device = BusDevice::of(&answer(&whole)).unwrap();
        assert_eq!(
            (
                device.device_id,
                device.management.bus,
                device.min_queue_size
            ),
            (1, None, None)
        );
        for left_out in 0..whole.len() {
            let mut some = whole.to_vec();
            some.remove(left_out);
            let error = BusDevice::of(&answer(&some)).unwrap_err().to_string();
            assert!(
                error.starts_with("VDPA_CMD_DEV_NEW: the answer lacks VDPA_ATTR_"),
                "{error}"
            );
        }
    }

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

    #[test]
    fn file_is_no_netlink_socket() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let error = Netlink::from_fd(null.into()).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Call {
                    call: "connect",
                    errno: Errno::ENOTSOCK
                }
            ),
            "{error}"
        );
    }
}
