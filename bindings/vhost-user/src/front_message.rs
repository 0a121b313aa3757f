//! What a front end asks for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::form::Form;
use crate::payload::{
    Config, ConfigSpan, Cursor, DeviceState, Fields, Inflight, Iotlb, Layout, Log, MemoryRegion,
    VringAddr, VringFd, VringState, table,
};
use crate::reply::Answer;
use crate::{Error, Frame, FrontRequest, Outgoing, ProtocolFeatures};

/// A request of a front end, taken apart. Its descriptors are in it.
///
/// # Spec
/// vhost-user, "Front-end message types"; the name there is that of the [`FrontRequest`].
#[derive(Debug)]
#[non_exhaustive]
pub enum FrontMessage {
    /// [`FrontRequest::GetFeatures`].
    GetFeatures,
    /// [`FrontRequest::SetFeatures`]: virtio's, with [`F_LOG_ALL`](crate::F_LOG_ALL) and
    /// [`F_PROTOCOL_FEATURES`](crate::F_PROTOCOL_FEATURES) among them.
    SetFeatures(u64),
    /// [`FrontRequest::SetOwner`].
    SetOwner,
    /// [`FrontRequest::ResetOwner`].
    ResetOwner,
    /// [`FrontRequest::SetMemTable`]: all regions with their files. No two have bytes in common.
    SetMemTable(Vec<(MemoryRegion, OwnedFd)>),
    /// [`FrontRequest::SetLogBase`] with a file, to which there is a reply.
    SetLogBase(Log, OwnedFd),
    /// [`FrontRequest::SetLogBase`] without one, where `LOG_SHMFD` is not negotiated: an address that only the kernel could
    /// use.
    SetLogAddress(u64),
    /// [`FrontRequest::SetLogFd`].
    SetLogFd(OwnedFd),
    /// [`FrontRequest::SetVringNum`].
    SetVringNum(VringState),
    /// [`FrontRequest::SetVringAddr`].
    SetVringAddr(VringAddr),
    /// [`FrontRequest::SetVringBase`].
    SetVringBase(VringState),
    /// [`FrontRequest::GetVringBase`]; the number means nothing.
    GetVringBase(VringState),
    /// [`FrontRequest::SetVringKick`].
    SetVringKick(VringFd),
    /// [`FrontRequest::SetVringCall`].
    SetVringCall(VringFd),
    /// [`FrontRequest::SetVringErr`].
    SetVringErr(VringFd),
    /// [`FrontRequest::GetProtocolFeatures`].
    GetProtocolFeatures,
    /// [`FrontRequest::SetProtocolFeatures`], with whatever bits came.
    SetProtocolFeatures(ProtocolFeatures),
    /// [`FrontRequest::GetQueueNum`].
    GetQueueNum,
    /// [`FrontRequest::SetVringEnable`]: the number is 0 or 1.
    SetVringEnable(VringState),
    /// [`FrontRequest::SendRarp`]: the guest's MAC address.
    SendRarp([u8; 6]),
    /// [`FrontRequest::NetSetMtu`].
    NetSetMtu(u64),
    /// [`FrontRequest::SetBackendReqFd`]: a socket, or what says that it is one.
    SetBackendReqFd(OwnedFd),
    /// [`FrontRequest::IotlbMsg`].
    IotlbMsg(Iotlb),
    /// [`FrontRequest::SetVringEndian`]: the number is 0 (little) or 1 (big).
    SetVringEndian(VringState),
    /// [`FrontRequest::GetConfig`].
    GetConfig(ConfigSpan),
    /// [`FrontRequest::SetConfig`].
    SetConfig(Config),
    /// [`FrontRequest::CreateCryptoSession`], not taken apart.
    CreateCryptoSession(Vec<u8>),
    /// [`FrontRequest::CloseCryptoSession`].
    CloseCryptoSession(u64),
    /// [`FrontRequest::PostcopyAdvise`].
    PostcopyAdvise,
    /// [`FrontRequest::PostcopyListen`].
    PostcopyListen,
    /// [`FrontRequest::PostcopyEnd`].
    PostcopyEnd,
    /// [`FrontRequest::GetInflightFd`]: for how many queues, of which size.
    GetInflightFd(Inflight),
    /// [`FrontRequest::SetInflightFd`].
    SetInflightFd(Inflight, OwnedFd),
    /// [`FrontRequest::GpuSetSocket`].
    GpuSetSocket(OwnedFd),
    /// [`FrontRequest::ResetDevice`].
    ResetDevice,
    /// [`FrontRequest::VringKick`]; the number means nothing.
    VringKick(VringState),
    /// [`FrontRequest::GetMaxMemSlots`].
    GetMaxMemSlots,
    /// [`FrontRequest::AddMemReg`].
    AddMemReg(MemoryRegion, OwnedFd),
    /// [`FrontRequest::RemMemReg`]: known by its addresses and its size.
    RemMemReg(MemoryRegion),
    /// [`FrontRequest::SetStatus`]: the virtio status byte.
    SetStatus(u8),
    /// [`FrontRequest::GetStatus`].
    GetStatus,
    /// [`FrontRequest::GetSharedObject`]: its UUID.
    GetSharedObject([u8; 16]),
    /// [`FrontRequest::SetDeviceStateFd`]: the other end of the channel.
    SetDeviceStateFd(DeviceState, OwnedFd),
    /// [`FrontRequest::CheckDeviceState`].
    CheckDeviceState,
    /// [`FrontRequest::GetShmemConfig`].
    GetShmemConfig,
}

impl FrontMessage {
    /// Takes a message apart.
    ///
    /// # Errors
    /// Flags, number, length, count of descriptors or a field that the protocol does not allow. All descriptors that came
    /// are closed then.
    pub fn decode(frame: Frame) -> Result<Self, Error> {
        frame.header.expect(false)?;
        let number = frame.header.request;
        let request = FrontRequest::from_number(number).ok_or(Error::Unknown {
            side: FrontRequest::SIDE,
            number,
        })?;
        let form = request.form();
        let (payload, fds) = checked(&form, &frame.payload, frame.fds)?;
        let mut from = Cursor::new(form.name, form.payload.lengths(), payload);
        Self::read(request, &form, &mut from, fds)
    }

    fn read(
        request: FrontRequest,
        form: &Form,
        from: &mut Cursor<'_>,
        mut fds: Vec<OwnedFd>,
    ) -> Result<Self, Error> {
        use FrontRequest as R;

        if request == R::SetMemTable {
            return table(from, fds).map(Self::SetMemTable);
        }
        let with_fd = !fds.is_empty();
        let mut fd = fds.pop();
        let mut owned = || {
            fd.take().ok_or(Error::Fds {
                name: form.name,
                have: 0,
                least: 1,
                most: 1,
            })
        };
        Ok(match request {
            R::GetFeatures => Self::GetFeatures,
            R::SetFeatures => Self::SetFeatures(from.u64()?),
            R::SetOwner => Self::SetOwner,
            R::ResetOwner => Self::ResetOwner,
            R::SetMemTable => Self::SetMemTable(Vec::new()),
            R::SetLogBase if from.left() == 8 && !with_fd => Self::SetLogAddress(from.u64()?),
            R::SetLogBase => Self::SetLogBase(Log::read(from)?, owned()?),
            R::SetLogFd => Self::SetLogFd(owned()?),
            R::SetVringNum => Self::SetVringNum(VringState::read(from)?),
            R::SetVringAddr => Self::SetVringAddr(VringAddr::read(from)?),
            R::SetVringBase => Self::SetVringBase(VringState::read(from)?),
            R::GetVringBase => Self::GetVringBase(VringState::read(from)?),
            R::SetVringKick => Self::SetVringKick(VringFd::read(from, fd)?),
            R::SetVringCall => Self::SetVringCall(VringFd::read(from, fd)?),
            R::SetVringErr => Self::SetVringErr(VringFd::read(from, fd)?),
            R::GetProtocolFeatures => Self::GetProtocolFeatures,
            R::SetProtocolFeatures => {
                Self::SetProtocolFeatures(ProtocolFeatures::from_bits_retain(from.u64()?))
            }
            R::GetQueueNum => Self::GetQueueNum,
            R::SetVringEnable => Self::SetVringEnable(switch(from)?),
            R::SendRarp => {
                let mac = from.array()?;
                let _padding = from.u16()?;
                Self::SendRarp(mac)
            }
            R::NetSetMtu => Self::NetSetMtu(from.u64()?),
            R::SetBackendReqFd => Self::SetBackendReqFd(owned()?),
            R::IotlbMsg => Self::IotlbMsg(Iotlb::read(from)?),
            R::SetVringEndian => Self::SetVringEndian(switch(from)?),
            R::GetConfig => Self::GetConfig(ConfigSpan::read(from)?),
            R::SetConfig => Self::SetConfig(Config::read(from)?),
            R::CreateCryptoSession => Self::CreateCryptoSession(from.bytes(from.left())?.to_vec()),
            R::CloseCryptoSession => Self::CloseCryptoSession(from.u64()?),
            R::PostcopyAdvise => Self::PostcopyAdvise,
            R::PostcopyListen => Self::PostcopyListen,
            R::PostcopyEnd => Self::PostcopyEnd,
            R::GetInflightFd => Self::GetInflightFd(Inflight::read(from)?),
            R::SetInflightFd => Self::SetInflightFd(Inflight::read(from)?, owned()?),
            R::GpuSetSocket => Self::GpuSetSocket(owned()?),
            R::ResetDevice => Self::ResetDevice,
            R::VringKick => Self::VringKick(VringState::read(from)?),
            R::GetMaxMemSlots => Self::GetMaxMemSlots,
            R::AddMemReg => {
                let _padding = from.u64()?;
                Self::AddMemReg(MemoryRegion::read(from)?, owned()?)
            }
            R::RemMemReg => {
                let _padding = from.u64()?;
                Self::RemMemReg(MemoryRegion::read(from)?)
            }
            R::SetStatus => {
                let status = from.u64()?;
                let legal = "a status has 8 bits";
                let status = u8::try_from(status).map_err(|_| from.value("status", status, legal));
                Self::SetStatus(status?)
            }
            R::GetStatus => Self::GetStatus,
            R::GetSharedObject => Self::GetSharedObject(from.array()?),
            R::SetDeviceStateFd => Self::SetDeviceStateFd(DeviceState::read(from)?, owned()?),
            R::CheckDeviceState => Self::CheckDeviceState,
            R::GetShmemConfig => Self::GetShmemConfig,
        })
    }

    /// Which request it is.
    pub fn request(&self) -> FrontRequest {
        use FrontRequest as R;

        match self {
            Self::GetFeatures => R::GetFeatures,
            Self::SetFeatures(_) => R::SetFeatures,
            Self::SetOwner => R::SetOwner,
            Self::ResetOwner => R::ResetOwner,
            Self::SetMemTable(_) => R::SetMemTable,
            Self::SetLogBase(..) | Self::SetLogAddress(_) => R::SetLogBase,
            Self::SetLogFd(_) => R::SetLogFd,
            Self::SetVringNum(_) => R::SetVringNum,
            Self::SetVringAddr(_) => R::SetVringAddr,
            Self::SetVringBase(_) => R::SetVringBase,
            Self::GetVringBase(_) => R::GetVringBase,
            Self::SetVringKick(_) => R::SetVringKick,
            Self::SetVringCall(_) => R::SetVringCall,
            Self::SetVringErr(_) => R::SetVringErr,
            Self::GetProtocolFeatures => R::GetProtocolFeatures,
            Self::SetProtocolFeatures(_) => R::SetProtocolFeatures,
            Self::GetQueueNum => R::GetQueueNum,
            Self::SetVringEnable(_) => R::SetVringEnable,
            Self::SendRarp(_) => R::SendRarp,
            Self::NetSetMtu(_) => R::NetSetMtu,
            Self::SetBackendReqFd(_) => R::SetBackendReqFd,
            Self::IotlbMsg(_) => R::IotlbMsg,
            Self::SetVringEndian(_) => R::SetVringEndian,
            Self::GetConfig(_) => R::GetConfig,
            Self::SetConfig(_) => R::SetConfig,
            Self::CreateCryptoSession(_) => R::CreateCryptoSession,
            Self::CloseCryptoSession(_) => R::CloseCryptoSession,
            Self::PostcopyAdvise => R::PostcopyAdvise,
            Self::PostcopyListen => R::PostcopyListen,
            Self::PostcopyEnd => R::PostcopyEnd,
            Self::GetInflightFd(_) => R::GetInflightFd,
            Self::SetInflightFd(..) => R::SetInflightFd,
            Self::GpuSetSocket(_) => R::GpuSetSocket,
            Self::ResetDevice => R::ResetDevice,
            Self::VringKick(_) => R::VringKick,
            Self::GetMaxMemSlots => R::GetMaxMemSlots,
            Self::AddMemReg(..) => R::AddMemReg,
            Self::RemMemReg(_) => R::RemMemReg,
            Self::SetStatus(_) => R::SetStatus,
            Self::GetStatus => R::GetStatus,
            Self::GetSharedObject(_) => R::GetSharedObject,
            Self::SetDeviceStateFd(..) => R::SetDeviceStateFd,
            Self::CheckDeviceState => R::CheckDeviceState,
            Self::GetShmemConfig => R::GetShmemConfig,
        }
    }

    /// As it is sent.
    pub fn encode(&self) -> Outgoing<'_> {
        Outgoing {
            request: self.request().form().number,
            payload: self.payload(),
            fds: self.fds(),
        }
    }

    fn payload(&self) -> Vec<u8> {
        let region = |region: &MemoryRegion| region.write(Fields::default().u64(0)).0;
        match self {
            Self::GetFeatures
            | Self::SetOwner
            | Self::ResetOwner
            | Self::SetLogFd(_)
            | Self::GetProtocolFeatures
            | Self::GetQueueNum
            | Self::SetBackendReqFd(_)
            | Self::PostcopyAdvise
            | Self::PostcopyListen
            | Self::PostcopyEnd
            | Self::GpuSetSocket(_)
            | Self::ResetDevice
            | Self::GetMaxMemSlots
            | Self::GetStatus
            | Self::CheckDeviceState
            | Self::GetShmemConfig => Vec::new(),
            Self::SetFeatures(value)
            | Self::SetLogAddress(value)
            | Self::NetSetMtu(value)
            | Self::CloseCryptoSession(value) => value.payload(),
            Self::SetProtocolFeatures(features) => features.bits().payload(),
            Self::SetStatus(status) => u64::from(*status).payload(),
            Self::SendRarp(mac) => Fields::default().bytes(mac).pad(8).0,
            Self::SetMemTable(table) => {
                let count = u32::try_from(table.len()).unwrap_or(u32::MAX);
                let head = Fields::default().u32(count).u32(0);
                table
                    .iter()
                    .fold(head, |to, (region, _)| region.write(to))
                    .0
            }
            Self::SetLogBase(log, _) => log.payload(),
            Self::SetVringNum(state)
            | Self::SetVringBase(state)
            | Self::GetVringBase(state)
            | Self::SetVringEnable(state)
            | Self::SetVringEndian(state)
            | Self::VringKick(state) => state.payload(),
            Self::SetVringAddr(addr) => addr.payload(),
            Self::SetVringKick(fd) | Self::SetVringCall(fd) | Self::SetVringErr(fd) => fd.payload(),
            Self::IotlbMsg(iotlb) => iotlb.payload(),
            Self::GetConfig(span) => span.payload(),
            Self::SetConfig(config) => config.payload(),
            Self::CreateCryptoSession(bytes) => bytes.clone(),
            Self::GetInflightFd(inflight) | Self::SetInflightFd(inflight, _) => inflight.payload(),
            Self::AddMemReg(added, _) => region(added),
            Self::RemMemReg(removed) => region(removed),
            Self::GetSharedObject(uuid) => uuid.to_vec(),
            Self::SetDeviceStateFd(state, _) => state.payload(),
        }
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::SetMemTable(table) => table.iter().map(|(_, fd)| fd.as_fd()).collect(),
            Self::SetVringKick(vring) | Self::SetVringCall(vring) | Self::SetVringErr(vring) => {
                vring.fd.iter().map(AsFd::as_fd).collect()
            }
            Self::SetLogBase(_, fd)
            | Self::SetLogFd(fd)
            | Self::SetBackendReqFd(fd)
            | Self::SetInflightFd(_, fd)
            | Self::GpuSetSocket(fd)
            | Self::AddMemReg(_, fd)
            | Self::SetDeviceStateFd(_, fd) => vec![fd.as_fd()],
            _ => Vec::new(),
        }
    }

    /// What has to be sent back.
    pub(crate) fn answer(&self) -> Answer {
        match (self, self.request().form()) {
            (Self::SetLogBase(log, _), form) => Answer::log(&form, *log),
            (_, form) => Answer::of(&form),
        }
    }
}

/// A queue, and a number that is 0 or 1.
fn switch(from: &mut Cursor<'_>) -> Result<VringState, Error> {
    let state = VringState::read(from)?;
    match state.num {
        0 | 1 => Ok(state),
        other => Err(from.value("num", other.into(), "0 or 1")),
    }
}

/// Makes sure of the length and of the count of descriptors. Those that are too many are closed with the rest.
pub(crate) fn checked<'a>(
    form: &Form,
    payload: &'a [u8],
    fds: Vec<OwnedFd>,
) -> Result<(&'a [u8], Vec<OwnedFd>), Error> {
    if !form.payload.takes(payload.len()) {
        return Err(Error::Payload {
            name: form.name,
            have: payload.len(),
            want: form.payload.lengths(),
        });
    }
    if !(form.least_fds..=form.most_fds).contains(&fds.len()) {
        return Err(Error::Fds {
            name: form.name,
            have: fds.len(),
            least: form.least_fds,
            most: form.most_fds,
        });
    }
    Ok((payload, fds))
}
