//! Failures that no device of ours shows.
#![cfg(not(loom))]

mod tiny;

use std::sync::Arc;
use std::time::Duration;

use mockall::automock;
use tiny::{SPLIT, Tiny, now, soon};
use vdpa_core::*;
use vdpa_mem::Deadline;

/// The two answers that a device can give wrong for ever.
#[automock]
trait Answers: Send + Sync {
    fn status(&self) -> Result<Status>;
    fn begin_reset(&self) -> Result<()>;
}

/// A device that answers those as a test says.
struct Faulty {
    rest: Tiny,
    answers: MockAnswers,
}

impl VdpaDevice for Faulty {
    fn info(&self) -> &DeviceInfo {
        self.rest.info()
    }
    fn attach(&self, host: Host) -> Result<()> {
        self.rest.attach(host)
    }
    fn caps(&self) -> Caps<'_> {
        self.rest.caps()
    }
    fn offered(&self) -> Features {
        self.rest.offered()
    }
    fn accept(&self, f: Features) -> Result<()> {
        self.rest.accept(f)
    }
    fn status(&self) -> Result<Status> {
        self.answers.status()
    }
    fn add_status(&self, bits: Status) -> Result<()> {
        self.rest.add_status(bits)
    }
    fn begin_reset(&self) -> Result<()> {
        self.answers.begin_reset()
    }
    fn config_generation(&self) -> Result<Option<u32>> {
        self.rest.config_generation()
    }
    fn read_config(&self, at: u32, to: &mut [u8]) -> Result<()> {
        self.rest.read_config(at, to)
    }
    fn write_config(&self, at: u32, from: &[u8]) -> Result<()> {
        self.rest.write_config(at, from)
    }
    fn queue_limits(&self, q: QueueIndex) -> Result<QueueLimits> {
        self.rest.queue_limits(q)
    }
    fn start_queue(
        &self,
        q: QueueIndex,
        c: &QueueConfig,
        kick: Kick,
        call: Call,
    ) -> Result<Doorbell> {
        self.rest.start_queue(q, c, kick, call)
    }
    fn replace_call(&self, q: QueueIndex, call: Call) -> Result<()> {
        self.rest.replace_call(q, call)
    }
}

fn open(answers: MockAnswers) -> Device {
    let faulty = Faulty {
        rest: Tiny::default(),
        answers,
    };
    Device::new(Arc::new(faulty), Relay::new()).unwrap()
}

#[test]
fn refused_features_are_noticed_because_they_are_read_back() {
    let mut answers = MockAnswers::new();
    answers.expect_begin_reset().returning(|| Ok(()));
    answers.expect_status().returning(|| Ok(Status::empty()));
    let device = open(answers);
    let session = Session::open(device, soon()).map_err(|(_, e)| e).unwrap();
    let (session, error) = session.negotiate(SPLIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("VERSION_1"), "{error}");
    let (_, again) = session.negotiate(SPLIT).unwrap_err();
    assert!(matches!(again, Error::FeaturesRefused { .. }));
}

#[test]
fn a_reset_that_never_completes_ends_at_the_deadline() {
    let mut answers = MockAnswers::new();
    answers.expect_begin_reset().returning(|| Ok(()));
    answers
        .expect_status()
        .returning(|| Ok(Status::ACKNOWLEDGE));
    let device = open(answers);
    let error = device.reset(now()).unwrap_err();
    assert_eq!(error.to_string(), "the reset did not end in time");
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(matches!(device.write_status(1), Err(Error::Busy { .. })));
    let (device, _) = device.close(now()).unwrap_err();
    assert!(Session::open(device, now()).is_err());
}

#[test]
fn a_wait_of_hours_for_what_never_comes_takes_no_time_where_it_is_hurried() {
    let mut answers = MockAnswers::new();
    answers.expect_begin_reset().returning(|| Ok(()));
    answers
        .expect_status()
        .returning(|| Ok(Status::ACKNOWLEDGE));
    let device = open(answers);
    let hour = Duration::from_secs(3600);
    let real = std::time::Instant::now();
    let _hasty = clock::hasten(10_000_000);
    let error = device.reset(Deadline::after(hour)).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }));
    let events = device.events().unwrap();
    assert_eq!(events.wait(Deadline::after(hour)).unwrap(), None);
    let (device, _) = device.close(Deadline::after(hour)).unwrap_err();
    drop(device);
    assert!(real.elapsed() < hour, "three hours of waiting");
    assert!(clock::now() > real + 3 * hour);
}

#[test]
fn an_io_error_of_the_device_is_passed_on() {
    let mut answers = MockAnswers::new();
    answers.expect_begin_reset().returning(|| Ok(()));
    answers.expect_status().returning(|| {
        Err(Error::Io {
            what: "read the status",
            source: std::io::Error::from_raw_os_error(5),
        })
    });
    let device = open(answers);
    let error = device.status().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.to_string(), "cannot read the status");
}
