//! Functions that change hands, on trees that change as a kernel changes them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;

use super::*;

pub(super) const AT: &str = "0000:01:00.0";
pub(super) const PHYSICAL: &str = "0000:02:00.0";

/// A network card with its driver, and one with virtual functions.
pub(super) fn fixture() -> Fixture {
    let fixture = Fixture::new();
    fixture.bus(&["virtio-pci", "vfio-pci", "igb"]);
    fixture.function(AT, "1af4:1041 1af4:1100 020000");
    fixture.driver(AT, "virtio-pci");
    fixture.group(AT, 12);
    fixture.function(PHYSICAL, "8086:10c9 8086:0000 020000");
    fixture.driver(PHYSICAL, "igb");
    fixture.group(PHYSICAL, 13);
    for (name, text) in [
        ("sriov_totalvfs", "7"),
        ("sriov_numvfs", "0"),
        ("sriov_vf_device", "10ca"),
        ("sriov_drivers_autoprobe", "1"),
    ] {
        fixture.attribute(PHYSICAL, name, text);
    }
    fixture
}

pub(super) fn with<T>(
    fixture: &Fixture,
    kernel: &dyn Kernel,
    then: impl FnOnce(&Bindings) -> T,
) -> T {
    let host = fixture.host();
    then(&Bindings::new(&host, kernel, &host.state()))
}

pub(super) fn done(fixture: &Fixture, at: &str, wish: Wish) -> Result<Change, SysfsError> {
    let kernel = fixture.host().kernel().unwrap();
    with(fixture, &*kernel, |bindings| {
        bindings.carry_out(address(at), wish, Regard::Spare)
    })
}

pub(super) fn changed(fixture: &Fixture) -> Vec<Address> {
    let kernel = fixture.host().kernel().unwrap();
    with(fixture, &*kernel, |bindings| bindings.changed()).unwrap()
}

pub(super) fn read(fixture: &Fixture, at: &str) -> Function {
    fixture.host().function(address(at)).unwrap()
}

#[track_caller]
pub(super) fn refused(fixture: &Fixture, at: &str, wish: Wish, words: &[&str]) {
    let before: Vec<Function> = fixture.host().functions().unwrap();
    let error = done(fixture, at, wish).unwrap_err();
    assert!(error.is_refusal(), "{error}");
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains('\n'), "{text}");
    assert_eq!(fixture.host().functions().unwrap(), before);
}

#[test]
fn a_function_goes_to_vfio_and_back_to_who_had_it() {
    let fixture = fixture();
    let before = read(&fixture, AT);
    let change = done(&fixture, AT, Wish::Bind).unwrap();
    assert_eq!(change.before, before);
    assert_eq!(change.after.driver, Fact::Is("vfio-pci".to_owned()));
    let steps: Vec<String> = change.steps.iter().map(Step::to_string).collect();
    assert_eq!(
        steps,
        [
            "echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override",
            "echo 0000:01:00.0 > /sys/bus/pci/drivers/virtio-pci/unbind",
            "echo 0000:01:00.0 > /sys/bus/pci/drivers_probe",
        ]
    );
    assert!(read(&fixture, AT).is_vfio());
    assert_eq!(fixture.host().opens("/dev/vfio/12"), Opens::Yes);
    assert_eq!(changed(&fixture), [address(AT)]);
    // Again, and nothing happens.
    assert_eq!(done(&fixture, AT, Wish::Bind).unwrap().steps, []);
    let change = done(&fixture, AT, Wish::Unbind).unwrap();
    assert_eq!(change.steps.len(), 4);
    assert_eq!(change.after.driver, before.driver);
    assert_eq!(change.after.driver_override, Fact::Absent);
    assert_eq!(changed(&fixture), []);
    assert_eq!(fixture.host().opens("/dev/vfio/12"), Opens::Missing);
    assert_eq!(done(&fixture, AT, Wish::Unbind).unwrap().steps, []);
}

#[test]
fn a_function_that_nobody_had_is_nobodys_again() {
    let fixture = fixture();
    fixture.remove(&format!("/sys/bus/pci/devices/{AT}/driver"));
    fixture.attribute(AT, "driver_override", "pci-stub\n");
    let before = read(&fixture, AT);
    done(&fixture, AT, Wish::Bind).unwrap();
    assert!(read(&fixture, AT).is_vfio());
    done(&fixture, AT, Wish::Unbind).unwrap();
    assert_eq!(read(&fixture, AT), before);
}

/// A function that another program has given to VFIO.
pub(super) fn given_away() -> Fixture {
    let fixture = fixture();
    fixture.attribute(AT, "rehearsed_driver", "virtio-pci");
    fixture.remove(&format!("/sys/bus/pci/devices/{AT}/driver"));
    fixture.driver(AT, "vfio-pci");
    fixture.attribute(AT, "driver_override", "vfio-pci\n");
    fixture
}

#[test]
fn what_another_program_gave_to_vfio_goes_to_who_takes_it() {
    let fixture = given_away();
    let change = done(&fixture, AT, Wish::Unbind).unwrap();
    assert_eq!(change.after.driver, Fact::Is("virtio-pci".to_owned()));
    assert_eq!(done(&fixture, AT, Wish::Unbind).unwrap().steps, []);
}

#[test]
fn unbind_of_what_another_program_bound_can_be_restored() {
    let fixture = given_away();
    let before = read(&fixture, AT);
    for back in [Wish::Restore, Wish::Bind] {
        done(&fixture, AT, Wish::Unbind).unwrap();
        assert_eq!(changed(&fixture), [address(AT)]);
        done(&fixture, AT, back).unwrap();
        assert_eq!(read(&fixture, AT), before);
        assert_eq!(changed(&fixture), []);
    }
}

#[test]
fn unbind_after_a_crash_in_unbind_does_not_bind_to_vfio() {
    let mut crashes = 0;
    for acts in [false, true] {
        for step in 0.. {
            let fixture = given_away();
            if !dies(&fixture, AT, Wish::Unbind, (step, acts)) {
                break;
            }
            crashes += 1;
            let change = done(&fixture, AT, Wish::Unbind).unwrap();
            let after = (change.after.driver, change.after.driver_override);
            let free = (Fact::Is("virtio-pci".to_owned()), Fact::Absent);
            assert_eq!(after, free, "step {step}");
            // And what the crash cut short can be taken back.
            done(&fixture, AT, Wish::Restore).unwrap();
            assert!(read(&fixture, AT).is_vfio());
            assert_eq!(changed(&fixture), []);
        }
    }
    assert_eq!(crashes, 2 * 3);
}

#[test]
fn a_plan_writes_nothing() {
    let fixture = fixture();
    let before = fixture.host().functions().unwrap();
    let kernel = fixture.host().kernel().unwrap();
    with(&fixture, &*kernel, |bindings| {
        let plan = bindings.plan(address(AT), Wish::Bind, Regard::Spare);
        assert_eq!(plan.unwrap().steps.len(), 3);
        let plan = bindings.plan(address(PHYSICAL), Wish::VirtualFunctions(2), Regard::Spare);
        assert_eq!(plan.unwrap().steps.len(), 2);
    });
    assert_eq!(fixture.host().functions().unwrap(), before);
    assert!(!fixture.host().state().exists());
}

// --- crashes and failures --------------------------------------------------------------------

/// Acts, until a step at which this process dies, before or after the kernel has acted.
struct Mortal {
    kernel: Box<dyn Kernel>,
    steps: AtomicUsize,
    acts: bool,
}

impl Kernel for Mortal {
    fn write(&self, step: &Step) -> io::Result<()> {
        match self.steps.fetch_sub(1, Ordering::Relaxed) {
            0 => {
                if self.acts {
                    self.kernel.write(step)?;
                }
                panic!("dies");
            }
            _ => self.kernel.write(step),
        }
    }
}

/// Whether a wish was cut short by a crash at this step, before or after the kernel has acted.
fn dies(fixture: &Fixture, at: &str, wish: Wish, (step, acts): (usize, bool)) -> bool {
    let kernel = Mortal {
        kernel: fixture.host().kernel().unwrap(),
        steps: AtomicUsize::new(step),
        acts,
    };
    let run = || {
        with(fixture, &kernel, |bindings| {
            bindings.carry_out(address(at), wish, Regard::Force)
        })
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Err(_) => true,
        // The wish takes fewer steps.
        Ok(change) => {
            change.unwrap();
            false
        }
    }
}

/// Virtual functions of the card that can have some, from before anything was recorded.
pub(super) fn make(fixture: &Fixture, count: u16) {
    let step = Step {
        path: format!("/sys/bus/pci/devices/{PHYSICAL}/sriov_numvfs"),
        text: count.to_string(),
    };
    fixture.host().kernel().unwrap().write(&step).unwrap();
}

#[test]
fn a_crash_at_any_step_is_undone_by_restore() {
    let mut crashes = 0;
    let virtuals = Wish::VirtualFunctions;
    // How many virtual functions there are at first; what was done before; what is cut short.
    for (at, made, prepare, wish) in [
        (AT, 0, &[][..], Wish::Bind),
        (AT, 0, &[Wish::Bind], Wish::Unbind),
        (PHYSICAL, 0, &[], virtuals(3)),
        (PHYSICAL, 0, &[virtuals(3)], virtuals(2)),
        (PHYSICAL, 0, &[virtuals(3)], virtuals(0)),
        (PHYSICAL, 0, &[Wish::Bind], Wish::Restore),
        (PHYSICAL, 3, &[virtuals(0)], Wish::Bind),
        (PHYSICAL, 3, &[virtuals(0), Wish::Bind], Wish::Restore),
        (PHYSICAL, 3, &[], Wish::Bind),
        (PHYSICAL, 0, &[virtuals(3)], Wish::Bind),
    ] {
        for acts in [false, true] {
            for step in 0.. {
                let fixture = fixture();
                make(&fixture, made);
                let before = fixture.host().functions().unwrap();
                for wish in prepare {
                    done(&fixture, at, *wish).unwrap();
                }
                if !dies(&fixture, at, wish, (step, acts)) {
                    break;
                }
                crashes += 1;
                assert_eq!(changed(&fixture), [address(at)], "{wish:?}, step {step}");
                done(&fixture, at, Wish::Restore)
                    .unwrap_or_else(|error| panic!("{prepare:?}, {wish:?}, step {step}: {error}"));
                let after = fixture.host().functions().unwrap();
                assert_eq!(after, before, "{wish:?}, step {step}");
                assert_eq!(changed(&fixture), []);
            }
        }
    }
    assert_eq!(crashes, 2 * (3 + 4 + 2 + 2 + 2 + 4 + 3 + 5 + 3 + 3));
}

/// Refuses one step.
struct Refusing {
    kernel: Box<dyn Kernel>,
    steps: AtomicUsize,
}

impl Kernel for Refusing {
    fn write(&self, step: &Step) -> io::Result<()> {
        match self.steps.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(Errno::EIO.into()),
            _ => self.kernel.write(step),
        }
    }
}

#[test]
fn a_step_that_fails_leaves_the_function_where_it_was() {
    for (at, wish, steps) in [
        (AT, Wish::Bind, 3),
        (PHYSICAL, Wish::VirtualFunctions(2), 2),
    ] {
        for step in 0..steps {
            let fixture = fixture();
            let before = fixture.host().functions().unwrap();
            let kernel = Refusing {
                kernel: fixture.host().kernel().unwrap(),
                steps: AtomicUsize::new(step),
            };
            let error = with(&fixture, &kernel, |bindings| {
                bindings.carry_out(address(at), wish, Regard::Spare)
            })
            .unwrap_err();
            assert!(!error.is_refusal());
            let text = error.to_string();
            assert!(
                text.contains("as before") && text.contains("echo "),
                "{text}"
            );
            assert_eq!(fixture.host().functions().unwrap(), before, "{text}");
            assert_eq!(changed(&fixture), []);
        }
    }
}

#[test]
fn a_failure_on_the_way_back_leaves_it_with_vfio_and_recorded() {
    for step in 0..4 {
        let fixture = fixture();
        done(&fixture, AT, Wish::Bind).unwrap();
        let kernel = Refusing {
            kernel: fixture.host().kernel().unwrap(),
            steps: AtomicUsize::new(step),
        };
        let error = with(&fixture, &kernel, |bindings| {
            bindings.carry_out(address(AT), Wish::Unbind, Regard::Spare)
        });
        let text = error.unwrap_err().to_string();
        assert!(text.contains("vfio-pci, as before"), "{text}");
        assert!(read(&fixture, AT).is_vfio());
        assert_eq!(changed(&fixture), [address(AT)]);
        done(&fixture, AT, Wish::Restore).unwrap();
        assert_eq!(read(&fixture, AT).driver, Fact::Is("virtio-pci".to_owned()));
    }
}

/// Takes no function for VFIO, and says nothing, as when a driver's probe fails.
struct Unwilling(Box<dyn Kernel>, Fixture);

impl Kernel for Unwilling {
    fn write(&self, step: &Step) -> io::Result<()> {
        let only = read(&self.1, AT).driver_override;
        match step.path.ends_with("drivers_probe") && only == Fact::Is("vfio-pci".to_owned()) {
            true => Ok(()),
            false => self.0.write(step),
        }
    }
}

#[test]
fn a_driver_that_does_not_take_it_is_told_and_the_old_one_has_it_again() {
    let fixture = fixture();
    let before = read(&fixture, AT);
    let kernel = Unwilling(fixture.host().kernel().unwrap(), fixture);
    let fixture = &kernel.1;
    let error = with(fixture, &kernel, |bindings| {
        bindings.carry_out(address(AT), Wish::Bind, Regard::Spare)
    });
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("driver vfio-pci") && text.contains("virtio-pci, as before"),
        "{text}"
    );
    assert_eq!(read(fixture, AT), before);
    assert_eq!(changed(fixture), []);
}

/// Looks for the record before each step.
struct Witness<'a>(&'a Fixture, Box<dyn Kernel>);

impl Kernel for Witness<'_> {
    fn write(&self, step: &Step) -> io::Result<()> {
        let record = self.0.host().state().join(AT);
        let text =
            std::fs::read_to_string(record).expect("what it was is kept before it is changed");
        assert!(
            text.contains("driver virtio-pci\n") && text.ends_with("end\n"),
            "{text}"
        );
        self.1.write(step)
    }
}

#[test]
fn what_it_was_is_kept_before_anything_is_written() {
    let fixture = fixture();
    let kernel = Witness(&fixture, fixture.host().kernel().unwrap());
    for wish in [Wish::Bind, Wish::Unbind] {
        let change = with(&fixture, &kernel, |bindings| {
            bindings.carry_out(address(AT), wish, Regard::Spare)
        });
        assert!(!change.unwrap().steps.is_empty());
    }
}

/// Puts something in the way of taking the record away.
struct Obstructing<'a>(&'a Fixture, Box<dyn Kernel>);

impl Kernel for Obstructing<'_> {
    fn write(&self, step: &Step) -> io::Result<()> {
        let record = self.0.host().state().join(AT);
        if record.is_file() {
            std::fs::remove_file(&record)?;
            std::fs::create_dir(&record)?;
        }
        self.1.write(step)
    }
}

#[test]
fn a_record_that_stays_is_told_and_the_function_is_as_wished() {
    let fixture = fixture();
    done(&fixture, AT, Wish::Bind).unwrap();
    let kernel = Obstructing(&fixture, fixture.host().kernel().unwrap());
    let error = with(&fixture, &kernel, |bindings| {
        bindings.carry_out(address(AT), Wish::Unbind, Regard::Spare)
    });
    let error = error.unwrap_err();
    assert!(
        !error.is_refusal() && error.to_string().contains("as wished"),
        "{error}"
    );
    assert_eq!(read(&fixture, AT).driver, Fact::Is("virtio-pci".to_owned()));
}
