//! What a back end asks for, over the back-end channel.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::front_message::checked;
use crate::payload::{Cursor, Iotlb, Layout, VringArea, VringState};
use crate::{BackRequest, Error, Frame, Outgoing};

/// A request of a back end, taken apart. Its descriptors are in it.
///
/// # Spec
/// vhost-user, "Back-end message types"; the name there is that of the [`BackRequest`].
#[derive(Debug)]
#[non_exhaustive]
pub enum BackMessage {
    /// [`BackRequest::IotlbMsg`].
    IotlbMsg(Iotlb),
    /// [`BackRequest::ConfigChangeMsg`].
    ConfigChange,
    /// [`BackRequest::VringHostNotifierMsg`].
    VringHostNotifier(VringArea, Option<OwnedFd>),
    /// [`BackRequest::VringCall`]; the number means nothing.
    VringCall(VringState),
    /// [`BackRequest::VringErr`]; the number means nothing.
    VringErr(VringState),
    /// [`BackRequest::SharedObjectAdd`]: its UUID.
    SharedObjectAdd([u8; 16]),
    /// [`BackRequest::SharedObjectRemove`]: its UUID.
    SharedObjectRemove([u8; 16]),
    /// [`BackRequest::SharedObjectLookup`]: its UUID.
    SharedObjectLookup([u8; 16]),
    /// [`BackRequest::ShmemMap`], not taken apart.
    ShmemMap(Vec<u8>, OwnedFd),
    /// [`BackRequest::ShmemUnmap`], not taken apart.
    ShmemUnmap(Vec<u8>),
}

impl BackMessage {
    /// Takes a message apart.
    ///
    /// # Errors
    /// Flags, number, length, count of descriptors or a field that the protocol does not allow. All descriptors that came
    /// are closed then.
    pub fn decode(frame: Frame) -> Result<Self, Error> {
        use BackRequest as R;

        frame.header.expect(false)?;
        let number = frame.header.request;
        let request = BackRequest::from_number(number).ok_or(Error::Unknown {
            side: BackRequest::SIDE,
            number,
        })?;
        let form = request.form();
        let (payload, mut fds) = checked(&form, &frame.payload, frame.fds)?;
        let from = &mut Cursor::new(form.name, form.payload.lengths(), payload);
        let fd = fds.pop();
        Ok(match request {
            R::IotlbMsg => Self::IotlbMsg(Iotlb::read(from)?),
            R::ConfigChangeMsg => Self::ConfigChange,
            R::VringHostNotifierMsg => Self::VringHostNotifier(VringArea::read(from)?, fd),
            R::VringCall => Self::VringCall(VringState::read(from)?),
            R::VringErr => Self::VringErr(VringState::read(from)?),
            R::SharedObjectAdd => Self::SharedObjectAdd(from.array()?),
            R::SharedObjectRemove => Self::SharedObjectRemove(from.array()?),
            R::SharedObjectLookup => Self::SharedObjectLookup(from.array()?),
            R::ShmemMap => match fd {
                Some(fd) => Self::ShmemMap(payload.to_vec(), fd),
                None => {
                    return Err(Error::Fds {
                        name: form.name,
                        have: 0,
                        least: 1,
                        most: 1,
                    });
                }
            },
            R::ShmemUnmap => Self::ShmemUnmap(payload.to_vec()),
        })
    }

    /// Which request it is.
    pub fn request(&self) -> BackRequest {
        use BackRequest as R;

        match self {
            Self::IotlbMsg(_) => R::IotlbMsg,
            Self::ConfigChange => R::ConfigChangeMsg,
            Self::VringHostNotifier(..) => R::VringHostNotifierMsg,
            Self::VringCall(_) => R::VringCall,
            Self::VringErr(_) => R::VringErr,
            Self::SharedObjectAdd(_) => R::SharedObjectAdd,
            Self::SharedObjectRemove(_) => R::SharedObjectRemove,
            Self::SharedObjectLookup(_) => R::SharedObjectLookup,
            Self::ShmemMap(..) => R::ShmemMap,
            Self::ShmemUnmap(_) => R::ShmemUnmap,
        }
    }

    /// As it is sent.
    pub fn encode(&self) -> Outgoing<'_> {
        let fds: Vec<BorrowedFd<'_>> = match self {
            Self::VringHostNotifier(_, fd) => fd.iter().map(AsFd::as_fd).collect(),
            Self::ShmemMap(_, fd) => vec![fd.as_fd()],
            _ => Vec::new(),
        };
        let payload = match self {
            Self::ConfigChange => Vec::new(),
            Self::IotlbMsg(iotlb) => iotlb.payload(),
            Self::VringHostNotifier(area, _) => area.payload(),
            Self::VringCall(state) | Self::VringErr(state) => state.payload(),
            Self::SharedObjectAdd(uuid)
            | Self::SharedObjectRemove(uuid)
            | Self::SharedObjectLookup(uuid) => uuid.to_vec(),
            Self::ShmemMap(bytes, _) | Self::ShmemUnmap(bytes) => bytes.clone(),
        };
        Outgoing {
            request: self.request().form().number,
            payload,
            fds,
        }
    }
}
