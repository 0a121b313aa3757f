//! A device that is lost keeps nobody from having memory back and letting go.
#![cfg(not(loom))]

mod tiny;

use std::sync::Arc;

use tiny::*;
use vdpa_core::session::{QueueSetup, Running};
use vdpa_core::*;
use vdpa_mem::{Access, Iova, IovaRange};

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

/// All that can be asked of a device, from reset to the end.
fn life(device: &Device) -> Result<()> {
    device.reset(soon())?;
    device.accept(SPLIT)?;
    device.write_status(0x0b)?;
    device.read_config(0, &mut [0; 8])?;
    device.write_config(0, &[1])?;
    device.queue_limits(q(0))?;
    device.restore_class_state(&[1, 2, 3])?;
    for queue in [0, 1] {
        device.start_queue(q(queue), config(), Kick::Taken, Call::None)?;
    }
    device.write_status(0x0f)?;
    device.replace_call(q(0), Call::None)?;
    device.enable_queue(q(0), false)?;
    device.stop_queue(q(0), soon())?;
    device.reset_queue(q(1), soon())?;
    device.suspend(soon())?;
    device.save()?;
    device.resume()?;
    device.config_generation()?;
    device.stats(&mut |_, _| {})
}

/// A device with its memory mapped.
fn mapped(tiny: &Arc<Tiny>) -> Device {
    let device = Device::new(tiny.clone(), Relay::new()).unwrap();
    map(&device, 0x1_0000, 0x1_0000, Access::Both);
    device
}

#[test]
fn a_parent_that_finds_the_device_gone_at_any_call_is_heard_once() {
    let mut calls = 0;
    for lost in 1.. {
        let tiny = Arc::new(Tiny::default());
        let device = mapped(&tiny);
        let events = device.events().unwrap();
        let mut call = 0;
        *tiny.before.lock().unwrap() = Some(Box::new(move |_| {
            call += 1;
            match call < lost {
                true => Ok(()),
                // From then on, as registers that read as all ones.
                false => Err(Error::Gone),
            }
        }));
        match life(&device) {
            Ok(()) => break,
            Err(Error::Gone) => {}
            Err(other) => panic!("call {lost}: {other}"),
        }
        assert_eq!(events.try_next(), Some(Event::Gone), "call {lost}");
        // The parent may say so too.
        raise(&tiny, Event::Gone);
        assert!(matches!(device.status(), Err(Error::Gone)));
        assert!(matches!(device.reset(now()), Err(Error::Gone)));
        assert!(matches!(
            device.dma(Asid::new(0)).unwrap().map(vec![]),
            Err(Error::Gone)
        ));
        device.close(now()).map_err(|(_, e)| e).unwrap();
        assert_eq!(events.try_next(), None, "call {lost}");
        calls = lost;
    }
    assert!(calls > 40, "{calls} calls of the contract");
}

#[test]
fn a_status_of_all_ones_is_a_device_that_is_gone() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    let events = device.events().unwrap();
    tiny.kept.lock().unwrap().status = Status::from_bits_retain(0xff);
    assert!(matches!(device.status(), Err(Error::Gone)));
    assert_eq!(events.try_next(), Some(Event::Gone));
    device.close(now()).map_err(|(_, e)| e).unwrap();
}

#[test]
fn a_parent_that_says_that_the_device_is_broken_is_heard() {
    let (tiny, device) = configured(Tiny::default(), SPLIT);
    let events = device.events().unwrap();
    *tiny.before.lock().unwrap() = Some(Box::new(|_| Err(Error::Broken)));
    assert!(matches!(device.write_config(0, &[1]), Err(Error::Broken)));
    assert!(matches!(events.try_next(), Some(Event::Broken { .. })));
    assert!(matches!(device.status(), Err(Error::Broken)));
}

#[test]
fn an_event_from_another_thread_during_any_call_holds_nothing_up() {
    let needs_reset = || Event::NeedsReset {
        queue: None,
        why: "test".into(),
    };
    let all: [(&dyn Fn() -> Event, bool); 4] = [
        (&needs_reset, false),
        (&broken, true),
        (&|| Event::Gone, true),
        (&|| Event::RemoveRequested, false),
    ];
    for (event, ends) in all {
        for at in 1..60 {
            let tiny = Arc::new(Tiny::default());
            let device = mapped(&tiny);
            let events = device.events().unwrap();
            let sink = tiny.host.get().unwrap().events.clone();
            let (mut call, event) = (0, event());
            *tiny.before.lock().unwrap() = Some(Box::new({
                let event = event.clone();
                move |_| {
                    call += 1;
                    if call == at {
                        // Joined under whatever the device holds.
                        let (sink, event) = (sink.clone(), event.clone());
                        std::thread::spawn(move || sink.raise(event))
                            .join()
                            .unwrap();
                    }
                    Ok(())
                }
            }));
            let outcome = life(&device);
            let seen = std::iter::from_fn(|| events.try_next()).collect::<Vec<_>>();
            assert!(
                seen.len() <= 1 && seen.iter().all(|seen| *seen == event),
                "{seen:?}"
            );
            let lost = matches!(outcome, Err(Error::Broken | Error::Gone));
            assert!(!lost || ends, "{outcome:?}");
            *tiny.before.lock().unwrap() = None;
            device.close(soon()).map_err(|(_, e)| e).unwrap();
        }
    }
}
