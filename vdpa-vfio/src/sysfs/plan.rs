//! What has to be written for a function to be as it should.

use super::Fact;
use super::function::DEVICES;
use super::records::{State, VirtualState};
use super::rehearsal::DRIVERS;
use super::{Address, Function, Step, SysfsError};

/// Who has a function, and who may have it.
pub(super) fn state(function: &Function) -> Result<State, SysfsError> {
    let known = |what, fact: &Fact<String>| match fact {
        Fact::Is(name) => Ok(Some(name.clone())),
        Fact::Absent => Ok(None),
        Fact::Unknown(why) => Err(SysfsError::Unreadable {
            address: function.address,
            what,
            why: why.clone(),
        }),
    };
    Ok(State {
        driver: known("driver", &function.driver)?,
        only: known("driver_override", &function.driver_override)?,
    })
}

/// From one driver to another: the override keeps every other driver from the function while it is nobody's.
pub(super) fn to_state(address: Address, now: &State, want: &State) -> Vec<Step> {
    let only = |name: &Option<String>| {
        let path = format!("{DEVICES}/{address}/driver_override");
        Step::new(path, name.clone().unwrap_or_default())
    };
    let mut steps = Vec::new();
    let mut override_now = now.only.clone();
    if now.driver != want.driver {
        if want.driver.is_some() && override_now != want.driver {
            steps.push(only(&want.driver));
            override_now.clone_from(&want.driver);
        }
        if let Some(driver) = &now.driver {
            let path = format!("{DRIVERS}/{driver}/unbind");
            steps.push(Step::new(path, address.to_string()));
        }
        if want.driver.is_some() {
            steps.push(probe(address));
        }
    }
    if override_now != want.only {
        steps.push(only(&want.only));
    }
    steps
}

/// Back to whichever driver takes it by itself.
pub(super) fn to_anybody(address: Address, now: &State) -> Vec<Step> {
    let nobody = State {
        driver: None,
        only: None,
    };
    let mut steps = to_state(address, now, &nobody);
    steps.push(probe(address));
    steps
}

fn probe(address: Address) -> Step {
    Step::new("/sys/bus/pci/drivers_probe", address.to_string())
}

/// From one number of virtual functions to another. The kernel changes it only by way of none.
pub(super) fn to_virtuals(address: Address, now: VirtualState, want: VirtualState) -> Vec<Step> {
    let write = |name: &str, text: String| Step::new(format!("{DEVICES}/{address}/{name}"), text);
    let mut steps = Vec::new();
    if now.made != want.made && now.made != 0 {
        steps.push(write("sriov_numvfs", "0".to_owned()));
    }
    if let (Some(is), Some(autoprobe)) = (now.autoprobe, want.autoprobe)
        && is != autoprobe
    {
        steps.push(write("sriov_drivers_autoprobe", autoprobe.to_string()));
    }
    if now.made != want.made && want.made != 0 {
        steps.push(write("sriov_numvfs", want.made.to_string()));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(driver: (&str, &str), want: (&str, &str)) -> String {
        let state = |(driver, only): (&str, &str)| {
            let name = |name: &str| (name != "-").then(|| name.to_owned());
            State {
                driver: name(driver),
                only: name(only),
            }
        };
        let steps = to_state("01:00.0".parse().unwrap(), &state(driver), &state(want));
        let step = |step: &Step| {
            let file = step.path.rsplit('/').next().unwrap();
            format!("{file}={}", step.text.replace("0000:01:00.0", "it"))
        };
        steps.iter().map(step).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn only_what_has_to_be_is_written() {
        for (now, want, steps) in [
            (("a", "-"), ("a", "-"), ""),
            (
                ("a", "-"),
                ("vfio", "vfio"),
                "driver_override=vfio unbind=it drivers_probe=it",
            ),
            (
                ("-", "-"),
                ("vfio", "vfio"),
                "driver_override=vfio drivers_probe=it",
            ),
            (("-", "vfio"), ("vfio", "vfio"), "drivers_probe=it"),
            (
                ("a", "vfio"),
                ("vfio", "vfio"),
                "unbind=it drivers_probe=it",
            ),
            (
                ("vfio", "vfio"),
                ("a", "-"),
                "driver_override=a unbind=it drivers_probe=it driver_override=",
            ),
            (("a", "vfio"), ("a", "-"), "driver_override="),
            (("vfio", "vfio"), ("-", "-"), "unbind=it driver_override="),
            (("vfio", "vfio"), ("-", "b"), "unbind=it driver_override=b"),
        ] {
            assert_eq!(said(now, want), steps, "{now:?} to {want:?}");
        }
    }

    #[test]
    fn virtual_functions_are_changed_by_way_of_none() {
        let said = |now: (u16, u8), want: (u16, u8)| {
            let state = |(made, autoprobe)| VirtualState {
                made,
                autoprobe: Some(autoprobe),
            };
            let steps = to_virtuals("01:00.0".parse().unwrap(), state(now), state(want));
            let step =
                |step: &Step| format!("{}={}", step.path.rsplit('_').next().unwrap(), step.text);
            steps.iter().map(step).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(said((0, 1), (4, 0)), "autoprobe=0 numvfs=4");
        assert_eq!(said((4, 0), (2, 0)), "numvfs=0 numvfs=2");
        assert_eq!(said((2, 0), (0, 1)), "numvfs=0 autoprobe=1");
        assert_eq!(said((2, 1), (2, 1)), "");
    }
}
