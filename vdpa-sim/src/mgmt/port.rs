//! `port=...`: where the frames of a network card go.

use std::sync::Arc;

use vdpa_core::spec::Value;
use vdpa_core::{Error, Result};

use super::SimMgmt;
use crate::error::SimError;
use crate::net::Settings;
use crate::port::{
    Loopback, Membership, MirrorError, Null, PcapPort, Port, Presence, TapError, TapPort,
};

/// All of them.
pub(super) const PORTS: &str =
    "loopback, null, wire:NAME, switch:NAME[:VLAN], tap:NAME, pcap:IN[:OUT]";

/// Opens the port that the device string names.
pub(super) fn open(
    mgmt: &SimMgmt,
    value: Option<&Value<'_>>,
    settings: &Settings,
    presence: &Arc<Presence>,
) -> Result<Arc<dyn Port>> {
    let (pairs, longest) = (settings.pairs, settings.longest());
    let loopback = || Arc::new(Loopback::new(Arc::clone(presence), pairs, longest));
    let Some(value) = value else {
        return Ok(loopback());
    };
    let (kind, rest) = value.split(':');
    let named = rest.filter(|rest| !rest.text().is_empty());
    Ok(match (kind.text(), named) {
        ("loopback", None) => loopback(),
        ("null", None) => Arc::new(Null),
        ("wire", Some(wire)) => {
            let taken = mgmt
                .wires
                .take(wire.text(), Arc::clone(presence), pairs, longest);
            Arc::new(taken.map_err(|e| value.malformed(format!("free: {e}")))?)
        }
        ("wire", None) => return Err(no_name(value, "wire:NAME")),
        ("switch", Some(place)) => {
            let (name, vlan) = place.split(':');
            if name.text().is_empty() {
                return Err(no_name(value, "switch:NAME[:VLAN]"));
            }
            let membership = vlan.map_or(Ok(Membership::Trunk), |vlan| {
                vlan.integer(1..=4094).map(Membership::Access)
            })?;
            let presence = Arc::clone(presence);
            let switches = &mgmt.switches;
            let taken = switches.take(name.text(), membership, presence, pairs, longest);
            Arc::new(taken.map_err(|e| value.malformed(format!("a place that is free: {e}")))?)
        }
        ("switch", None) => return Err(no_name(value, "switch:NAME[:VLAN]")),
        ("tap", Some(name)) => {
            let port = TapPort::open(name.text(), Arc::clone(presence), pairs, longest);
            Arc::new(port.map_err(|e| match e {
                TapError::Name { .. } => name.malformed(TapError::LEGAL_NAME).into(),
                e => Error::from(SimError::from(e)),
            })?)
        }
        ("tap", None) => return Err(no_name(value, "tap:NAME")),
        ("pcap", Some(files)) => {
            let (input, output) = files.split(':');
            let output = output
                .as_ref()
                .map(Value::text)
                .filter(|path| !path.is_empty());
            let port = PcapPort::open(input.text().as_ref(), output.map(AsRef::as_ref));
            Arc::new(port.map_err(SimError::from)?)
        }
        ("pcap", None) => return Err(value.malformed("pcap:IN[:OUT]: it has no file").into()),
        ("loopback" | "null", Some(_)) => {
            return Err(value.malformed(format!("one of {PORTS}")).into());
        }
        _ => return Err(value.unknown(PORTS.split(", ")).into()),
    })
}

/// Has what goes through a port captured, if a file is named.
pub(super) fn mirrored(
    mgmt: &SimMgmt,
    port: Arc<dyn Port>,
    file: Option<&Value<'_>>,
    settings: &Settings,
    presence: &Arc<Presence>,
) -> Result<Arc<dyn Port>> {
    let Some(file) = file else { return Ok(port) };
    if file.text().is_empty() {
        return Err(file.malformed("FILE: it has no name").into());
    }
    let (path, presence) = (file.text().as_ref(), Arc::clone(presence));
    let (pairs, longest) = (settings.pairs, settings.longest());
    let mirror = mgmt.mirrors.start(path, port, presence, pairs, longest);
    Ok(Arc::new(mirror.map_err(|e| match e {
        MirrorError::Taken { .. } => Error::from(file.malformed(format!("free: {e}"))),
        MirrorError::Capture(e) => SimError::from(e).into(),
    })?))
}

fn no_name(value: &Value<'_>, form: &str) -> Error {
    value.malformed(format!("{form}: it has no name")).into()
}
