//! What is told of a device, and that a device which nobody listens to is left alone.

#[path = "../../vdpa-core/tests/tiny/mod.rs"]
mod tiny;

mod nobody;

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nobody::Nobody;
use tiny::*;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use vdpa_core::*;
use vdpa_layer::{Trace, TraceLayer};

/// What was told, as text.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Told {
    fn lines(&self, word: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| line.contains(word));
        lines.map(str::to_owned).collect()
    }
}

/// One test at a time: what `tracing` knows of who listens is the process's, and is found out anew with each listener.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `with` while somebody listens at `level`.
fn listening<T>(level: Level, with: impl FnOnce(&Told) -> T) -> T {
    let _alone = alone();
    let told = Told::default();
    let writer = told.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || with(&told))
}

/// A whole life of a device: every call of the contract, an event, a kick, a call.
fn life(most: LevelFilter) -> Arc<Tiny> {
    let tiny = Arc::new(Tiny::default());
    let device = Device::new(Arc::new(Trace::new(tiny.clone(), most)), Relay::new()).unwrap();
    device.reset(soon()).unwrap();
    device.accept(SPLIT).unwrap();
    device.write_status(0x0b).unwrap();
    map(&device, 0x1_0000, 0x1_0000, vdpa_mem::Access::Both);
    let call = Call::from_fn(|| {});
    let doorbell = device
        .start_queue(q(0), config(), Kick::Taken, call)
        .unwrap();
    device.write_status(0x0f).unwrap();
    doorbell.ring(5);
    doorbell.ring(6);
    tiny.raise(0);
    device.replace_call(q(0), Call::from_fn(|| {})).unwrap();
    tiny.host.get().unwrap().events.raise(Event::NeedsReset {
        queue: Some(q(0)),
        why: "for show".to_owned(),
    });
    device.read_config(0, &mut [0; 8]).unwrap();
    device.write_config(0, &[1]).unwrap();
    device.enable_queue(q(0), false).unwrap();
    device.stats(&mut |_, _| {}).unwrap();
    let refused = device.restore_class_state(&[9]);
    assert!(refused.is_err());
    device.close(soon()).map_err(|(_, e)| e).unwrap();
    tiny
}

#[test]
fn everything_is_told_with_its_fields() {
    let (tiny, told) = listening(Level::TRACE, |told| {
        (life(LevelFilter::TRACE), told.clone())
    });
    assert_eq!(*tiny.kicks.lock().unwrap(), [(0, 5), (0, 6)]);
    for call in [
        "attach",
        "offered",
        "accept",
        "status",
        "add_status",
        "begin_reset",
        "config_generation",
        "read_config",
        "write_config",
        "queue_limits",
        "start_queue",
        "replace_call",
        "queue_enable.set",
        "stats.read",
    ] {
        let lines = told.lines(&format!("call=\"{call}\""));
        assert!(!lines.is_empty(), "{call}");
        for line in lines {
            for field in ["vdpa: ", "device=\"tiny0\"", "outcome="] {
                assert!(line.contains(field), "{field} is not in {line}");
            }
        }
    }
    let accept = told.lines("call=\"accept\"").concat();
    assert!(
        accept.contains("VERSION_1") && accept.contains("DEBUG") && accept.contains("duration_us=")
    );
    let status = told.lines("call=\"add_status\"").concat();
    assert!(status.contains("FEATURES_OK"), "{status}");
    assert_eq!(told.lines("kick device").len(), 2);
    assert!(told.lines("kick device")[0].contains("queue=0 data=5"));
    // One of the device, one of the replacement.
    assert_eq!(told.lines("call device").len(), 2);
    let event = told.lines("NeedsReset").concat();
    assert!(
        event.contains("WARN") && event.contains("for show"),
        "{event}"
    );
    // It fails in the device's handle: the layer never sees it. One that the parent refuses it does.
    assert!(told.lines("class_state.restore").is_empty());
}

#[test]
fn a_call_that_fails_is_told_louder() {
    let told = listening(Level::INFO, |told| {
        let tiny = Tiny::default();
        tiny.refuses
            .store(true, std::sync::atomic::Ordering::SeqCst);
        let device = Arc::new(Trace::new(Arc::new(tiny), LevelFilter::TRACE));
        let device = Device::new(device, Relay::new()).unwrap();
        device.accept(SPLIT).unwrap();
        device.write_status(0x0b).unwrap();
        map(&device, 0x1_0000, 0x1_0000, vdpa_mem::Access::Both);
        let refused = device.start_queue(q(0), config(), Kick::Taken, Call::None);
        assert!(refused.is_err());
        told.clone()
    });
    let all = told.lines("call=");
    assert_eq!(all.len(), 1, "{all:?}");
    assert!(
        all[0].contains("start_queue") && all[0].contains("on purpose"),
        "{all:?}"
    );
}

#[test]
fn no_more_is_told_than_is_asked_for() {
    for (heard, most, calls, kicks) in [
        (Level::TRACE, LevelFilter::DEBUG, true, false),
        (Level::DEBUG, LevelFilter::TRACE, true, false),
        (Level::TRACE, LevelFilter::WARN, false, false),
        (Level::TRACE, LevelFilter::TRACE, true, true),
    ] {
        let told = listening(heard, |told| {
            life(most);
            told.clone()
        });
        assert_eq!(
            !told.lines("call=\"start_queue\"").is_empty(),
            calls,
            "{most}"
        );
        assert_eq!(!told.lines("kick device").is_empty(), kicks, "{most}");
        assert_eq!(told.lines("NeedsReset").len(), 1, "{most}");
    }
}

#[test]
fn kicks_and_calls_go_straight_through_while_nobody_listens() {
    let _alone = alone();
    let tiny = Arc::new(Tiny::default());
    let layer = Trace::new(tiny.clone(), LevelFilter::TRACE);
    layer
        .attach(Host {
            events: Arc::new(Nobody),
            spaces: Arc::new([]),
            relay: Relay::new(),
        })
        .unwrap();
    let kept = Arc::new(());
    let call = Call::from_fn({
        let kept = kept.clone();
        move || drop(kept.clone())
    });
    let Call::Fn(own) = &call else {
        panic!("it is one")
    };
    let before = Arc::strong_count(own);
    layer
        .start_queue(q(0), &config(), Kick::Taken, call.clone())
        .unwrap();
    assert_eq!(
        Arc::strong_count(own),
        before + 1,
        "the device has it itself"
    );
}

#[test]
fn every_capability_is_still_there() {
    let _alone = alone();
    for capable in [true, false] {
        let tiny = || Tiny {
            capable,
            ..Tiny::default()
        };
        let own = open(tiny()).1.cap_names();
        let layer = Arc::new(Trace::new(Arc::new(tiny()), LevelFilter::TRACE));
        assert_eq!(Device::new(layer, Relay::new()).unwrap().cap_names(), own);
    }
}

/// Takes the first mapping, and no other.
struct One;

impl DmaMap for One {
    fn limits(&self) -> DmaLimits {
        DmaLimits {
            ranges: vec![(vdpa_mem::Iova::new(0), vdpa_mem::Iova::new(u64::MAX))],
            granule: 4096,
            max_entries: None,
            reach: vdpa_core::Reach::Platform,
        }
    }
    fn map(&self, _: Asid, m: &Mapping) -> Result<()> {
        match m.iova.first().get() {
            0x1_0000 => Ok(()),
            _ => Err(Error::Busy { what: "the system" }),
        }
    }
    fn unmap(&self, _: Asid, _: &Mapping) -> Result<()> {
        Ok(())
    }
}

#[test]
fn mappings_are_told_of_where_the_device_has_to_be() {
    let told = listening(Level::DEBUG, |told| {
        let tiny = Tiny {
            maps: Some(Arc::new(One)),
            ..Tiny::default()
        };
        let layer = Arc::new(Trace::new(Arc::new(tiny), LevelFilter::DEBUG));
        let device = Device::new(layer, Relay::new()).unwrap();
        assert!(device.cap_names().contains(&"dma-map"));
        map(&device, 0x1_0000, 0x1000, vdpa_mem::Access::DeviceReads);
        let dma = device.dma(Asid::new(0)).unwrap();
        let mut refused = dma.mappings();
        for mapping in &mut refused {
            mapping.iova = IovaRange::new(vdpa_mem::Iova::new(0x2_0000), 0x1000).unwrap();
        }
        assert!(dma.map(refused).is_err());
        drop(device);
        told.clone()
    });
    let maps = told.lines("call=\"dma.map\"");
    assert_eq!(maps.len(), 2, "{maps:?}");
    assert!(
        maps[0].contains("DEBUG") && maps[0].contains("0x10000"),
        "{maps:?}"
    );
    assert!(maps[0].contains("DeviceReads"), "{maps:?}");
    assert!(
        maps[1].contains("INFO") && maps[1].contains("the system is under way"),
        "{maps:?}"
    );
    assert_eq!(told.lines("call=\"dma.unmap\"").len(), 1);
}

#[test]
fn the_layer_wraps_who_is_asked_for_or_listened_to() {
    let wraps = |spec: &str| {
        let mut spec = DeviceSpec::parse(spec).unwrap();
        let wrap = TraceLayer.wrap(&mut spec, &Nobody)?;
        assert!(spec.value("trace").is_none(), "the key is taken out");
        Ok::<_, Error>(wrap.is_some())
    };
    assert!(!wraps("sim:net").unwrap());
    assert!(wraps("sim:net,trace=info").unwrap());
    assert!(!wraps("sim:net,trace=off").unwrap());
    let Err(Error::Spec(error)) = wraps("sim:net,trace=lots") else {
        panic!("it is no level");
    };
    assert_eq!(error.part(), "lots");
    assert!(error.to_string().contains("debug"), "{error}");
    listening(Level::DEBUG, |_| {
        assert!(wraps("sim:net").unwrap());
        assert!(!wraps("sim:net,trace=off").unwrap());
    });
    listening(Level::INFO, |_| assert!(!wraps("sim:net").unwrap()));
}
