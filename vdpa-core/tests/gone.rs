//! A device that is lost keeps nobody from having memory back and letting go.
#![cfg(not(loom))]

mod tiny;

use std::sync::Arc;

use tiny::*;
use vdpa_core::session::{QueueSetup, Running};
use vdpa_core::*;
use vdpa_mem::{Iova, IovaRange};

fn raise(tiny: &Tiny, event: Event) {
    tiny.host.get().unwrap().events.raise(event);
}

fn broken() -> Event {
    let why = "test".into();
    Event::Broken { why }
}

fn session() -> (Arc<Tiny>, Session<Running>) {
    let (tiny, device) = open(Tiny::default());
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let mut session = session.negotiate(SPLIT).map_err(|(_, e)| e).unwrap();
    session.queue(q(0), QueueSetup::default()).unwrap();
    session.queue(q(1), QueueSetup::default()).unwrap();
    (tiny, session.run().map_err(|(_, e)| e).unwrap())
}

#[test]
fn memory_can_be_unmapped_once_the_device_is_gone() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    let dma = device.dma(Asid::new(0)).unwrap();
    let range = IovaRange::new(Iova::new(0x1_0000), 0x1_0000).unwrap();
    raise(&tiny, Event::Gone);
    assert!(matches!(dma.map(vec![]), Err(Error::Gone)));
    dma.unmap(range, now()).unwrap();
    assert!(dma.mappings().is_empty());
}

#[test]
fn a_session_of_a_device_that_is_gone_closes_and_gives_its_memory_back() {
    let (tiny, session) = session();
    raise(&tiny, Event::Gone);
    let device = session.close(soon()).map_err(|(_, e)| e).unwrap();
    let dma = device.dma(Asid::new(0)).unwrap();
    assert!(dma.mappings().is_empty());
    device.close(now()).map_err(|(_, e)| e).unwrap();
}

#[test]
fn a_session_of_a_broken_device_closes_and_its_memory_stays() {
    let (tiny, session) = session();
    raise(&tiny, broken());
    let (control, _queues) = session.split();
    let device = control.close(soon()).map_err(|(_, e)| e).unwrap();
    // Nobody can say what it will still write.
    let dma = device.dma(Asid::new(0)).unwrap();
    assert_eq!(dma.mappings().len(), 2);
    device.close(now()).map_err(|(_, e)| e).unwrap();
}
