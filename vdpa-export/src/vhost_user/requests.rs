//! What each request of a front end does.

use vdpa_core::{Features, QueueIndex, Status, bits};
use vdpa_mem::{Region, Window};
use vdpa_vhost_user::payload::{Iotlb, IotlbKind, Log, VringFd, VringState};
use vdpa_vhost_user::{F_LOG_ALL, F_PROTOCOL_FEATURES, FrontMessage, ProtocolFeatures, Reply};

use super::error::MemoryError;
use super::front::FrontEnd;
use super::{CutOff, config, inflight, offer};
use crate::serve::{KickFrom, ServeError, Served, Starts};

impl FrontEnd<'_> {
    /// Does what is asked, and says what to answer.
    ///
    /// # Errors
    /// When it cannot be done in a way that the front end could go on from.
    pub(super) fn take(&mut self, message: FrontMessage) -> Result<Reply, CutOff> {
        use FrontMessage as M;

        let request = message.request().form().name;
        let refused = |source: ServeError| CutOff::Request { request, source };
        let unusable = |source: MemoryError| CutOff::Memory { request, source };
        let not_offered = |why: &str| CutOff::NotOffered {
            request,
            why: why.to_owned(),
        };
        let served = &mut *self.served;
        let queues = served.device().info().queues;
        let data = offer::queues(served);
        let queue = |index| {
            queue(queues, index).ok_or(CutOff::Queue {
                request,
                index,
                count: data,
            })
        };
        let done = match message {
            M::GetFeatures => return Ok(Reply::Value(offer::features(served))),
            M::GetProtocolFeatures => {
                let offered = offer::protocol_features(served);
                return Ok(Reply::Value(offered.bits()));
            }
            M::GetQueueNum => return Ok(Reply::Value(offer::queues(served).into())),
            M::GetMaxMemSlots => {
                let most = u64::try_from(super::memory::MAX_SLOTS).unwrap_or(u64::MAX);
                return Ok(Reply::Value(most));
            }
            M::GetStatus => {
                let status = served.status().map_err(refused)?;
                return Ok(Reply::Value(status.bits().into()));
            }
            M::GetConfig(span) => return Ok(config::read(served.device(), &span)),
            M::GetVringBase(VringState { index, .. }) => {
                let q = queue(index)?;
                let num = self.served.halt(q).map_err(refused)?;
                return Ok(Reply::Vring(VringState { index, num }));
            }
            M::GetInflightFd(asked) => {
                let made = inflight::make(served.format(), &asked, queues).map_err(unusable)?;
                return Ok(Reply::Inflight(made.0, Some(made.1)));
            }
            M::SetDeviceStateFd(state, fd) => return Ok(self.begin_transfer(state.direction, fd)),
            M::CheckDeviceState => return Ok(self.end_transfer()),
            M::SetConfig(config) => return Ok(config::write(served.device(), &config)),
            M::SendRarp(mac) if served.can().announce => return Ok(announce(served, mac)),
            M::NetSetMtu(mtu) => return Ok(config::check_mtu(served, mtu)),

            // Nobody shares this connection. To give it up is to give up the device.
            M::SetOwner => Ok(()),
            M::ResetOwner | M::ResetDevice => served.reset(),
            M::SetProtocolFeatures(features) => {
                let offered = offer::protocol_features(served);
                if !offered.contains(features) || !features.lacks().is_empty() {
                    let beyond = names(features.difference(offered));
                    let why = format!("protocol features that were not offered: {beyond}");
                    return Err(not_offered(&why));
                }
                served.set_starts(match features.contains(ProtocolFeatures::STATUS) {
                    true => Starts::OnDriverOk,
                    false => Starts::AsReady,
                });
                Ok(())
            }
            M::SetFeatures(all) => return self.set_features(request, all),
            M::SetStatus(status) => served.write_status(Status::from_bits_retain(status)),

            M::SetMemTable(table) => {
                self.memory.set(table, served).map_err(unusable)?;
                served.check_log(self.memory.end())
            }
            M::AddMemReg(region, fd) => {
                self.memory.add(region, fd, served).map_err(unusable)?;
                served.check_log(self.memory.end())
            }
            M::RemMemReg(region) => {
                self.memory.remove(&region, served).map_err(unusable)?;
                Ok(())
            }
            M::IotlbMsg(entry) => {
                self.translate(&entry).map_err(unusable)?;
                Ok(())
            }
            M::SetLogBase(log, fd) => {
                let bytes = log_bytes(log, fd).map_err(|e| unusable(e.into()))?;
                served.set_log(bytes, self.memory.end())
            }
            M::SetLogAddress(_) => return Err(not_offered("the log has to come as a file")),
            // Whoever reads the log looks at it when it likes.
            M::SetLogFd(_) => Ok(()),

            M::SetVringNum(VringState { index, num }) => served.set_size(queue(index)?, num),
            M::SetVringBase(VringState { index, num }) => served.set_base(queue(index)?, num),
            M::SetVringEnable(VringState { index, num }) => {
                let q = queue(index)?;
                served.enable(q, num != 0)
            }
            M::SetVringAddr(addr) => {
                let q = queue(addr.index)?;
                let areas = [addr.descriptor, addr.available, addr.used];
                let logged = addr
                    .flags
                    .contains(vdpa_vhost_user::payload::VringFlags::LOG);
                served
                    .set_areas(q, areas, logged)
                    .and_then(|()| served.match_log())
                    .and_then(|()| served.check_log(self.memory.end()))
            }
            M::SetVringKick(VringFd { index, fd }) => {
                let q = queue(index.into())?;
                let kick = match fd {
                    Some(fd) => KickFrom::EventFd(fd.into()),
                    None => KickFrom::Polled,
                };
                served.set_kick(q, kick)
            }
            // DPDK's virtio-user names all that it has room for, before it knows how many there are.
            M::SetVringCall(VringFd { index, .. }) if u16::from(index) >= queues => Ok(()),
            M::SetVringCall(VringFd { index, fd }) => {
                served.set_call(QueueIndex::new(index.into()), fd)
            }
            M::SetVringErr(VringFd { index, fd }) => {
                let q = queue(index.into())?;
                served.set_error(q, fd)
            }
            M::SetVringEndian(VringState { num: 0, .. }) => Ok(()),
            M::SetVringEndian(_) => return Err(not_offered("rings are little-endian")),

            M::SetInflightFd(given, fd) => {
                let records =
                    inflight::records(served.format(), &given, fd, queues).map_err(unusable)?;
                served.set_records(records);
                Ok(())
            }
            M::SetBackendReqFd(fd) => {
                self.set_channel(fd);
                Ok(())
            }
            _ => return Err(not_offered("this request was not offered")),
        };
        done.map_err(refused)?;
        Ok(Reply::Done)
    }

    /// Virtio's features; of vhost's two bits one switches the log, and the other says how rings begin.
    fn set_features(&mut self, request: &'static str, all: u64) -> Result<Reply, CutOff> {
        let refused = |source| CutOff::Request { request, source };
        let log = all & F_LOG_ALL != 0;
        if log && !self.served.can().log {
            return Err(CutOff::NotOffered {
                request,
                why: "the device's writes cannot be logged".to_owned(),
            });
        }
        let chosen = Features::from_u64(all & !(F_LOG_ALL | F_PROTOCOL_FEATURES));
        self.served.choose(chosen).map_err(refused)?;
        let told = all & F_PROTOCOL_FEATURES != 0;
        self.served.set_enabled_unless_told(!told);
        let translated = chosen.contains(bits::ACCESS_PLATFORM);
        self.memory
            .set_translated(translated, self.served)
            .map_err(|source| CutOff::Memory { request, source })?;
        self.served.set_log_all(log).map_err(refused)?;
        let end = self.memory.end();
        self.served.check_log(end).map_err(refused)?;
        Ok(Reply::Done)
    }

    fn translate(&mut self, entry: &Iotlb) -> Result<(), MemoryError> {
        match entry.kind {
            IotlbKind::Update => self.memory.update(entry, self.served),
            IotlbKind::Invalidate => self.memory.invalidate(entry.iova, entry.size, self.served),
            // Requests of a back end.
            _ => Err(MemoryError::NotTranslated),
        }
    }
}

/// Each by its name, or its number where it has none.
fn names(features: ProtocolFeatures) -> String {
    let mut named = features.iter_names();
    let mut all: Vec<_> = named.by_ref().map(|(name, _)| name.to_owned()).collect();
    let rest = named.remaining().bits();
    let bits = (0..u64::BITS).filter(|bit| rest >> bit & 1 == 1);
    all.extend(bits.map(|bit| format!("bit {bit}")));
    all.join(", ")
}

/// The front end has taken a guest over that does not say itself where it is. One that does not run yet, or whose address is
/// none, is nobody's fault that could be mended by a disconnection.
fn announce(served: &Served, mac: [u8; 6]) -> Reply {
    match served.device().announce(mac.into()) {
        Ok(()) => Reply::Done,
        Err(error) => {
            tracing::warn!(%error, "the guest is not announced");
            Reply::Failed
        }
    }
}

/// The queue of a request: all 32 bits of its number count.
fn queue(count: u16, index: u32) -> Option<QueueIndex> {
    let legal = u16::try_from(index).ok().filter(|index| *index < count);
    legal.map(QueueIndex::new)
}

fn log_bytes(log: Log, fd: std::os::fd::OwnedFd) -> Result<Window, vdpa_mem::MemError> {
    let (_, window) = Region::shared(fd, log.offset, log.size)?.into_shared();
    Ok(window)
}
