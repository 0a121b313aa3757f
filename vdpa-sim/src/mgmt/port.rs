//! `port=...`: where the frames of a network card go.

use std::sync::Arc;

use vdpa_core::spec::Value;
use vdpa_core::{Error, Result};

use crate::error::SimError;
use crate::net::Settings;
use crate::port::{Loopback, Null, PcapPort, Port, Presence, TapError, TapPort, Wires};

/// All of them.
pub(super) const PORTS: &str = "loopback, null, wire:NAME, tap:NAME, pcap:IN[:OUT]";

/// Opens the port that the device string names.
pub(super) fn open(
    wires: &Wires,
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
            let taken = wires.take(wire.text(), Arc::clone(presence), pairs, longest);
            Arc::new(taken.map_err(|e| value.malformed(format!("free: {e}")))?)
        }
        ("wire", None) => return Err(value.malformed("wire:NAME: it has no name").into()),
        ("tap", Some(name)) => {
            let port = TapPort::open(name.text(), Arc::clone(presence), pairs, longest);
            Arc::new(port.map_err(|e| match e {
                TapError::Name { .. } => name.malformed(TapError::LEGAL_NAME).into(),
                e => Error::from(SimError::from(e)),
            })?)
        }
        ("tap", None) => return Err(value.malformed("tap:NAME: it has no name").into()),
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
