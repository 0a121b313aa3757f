//! `vdpactl vfio doctor`: what is in the way of using a function.

use std::path::Path;

use serde::Serialize;
use vdpa::pci::layout::{Kind, Structure};
use vdpa::pci::{Layout, PciParent, VirtioPci};
use vdpa::vfio::VfioMgmt;
use vdpa::vfio::sysfs::{self, Address, Finding, Host};
use vdpa::{DeviceSpec, VdpaDevice};

use crate::failure::{Failure, Verdict};
use crate::output::Output;
use crate::paint::Paint;
use crate::vfio::failed;
use crate::vfio::list::Row;
use crate::words::filled;

/// Characters in a line, beside its name.
const WIDTH: usize = 84;

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    function: Row,
    passed: usize,
    failed: usize,
    unknown: usize,
    lines: Vec<Line>,
    /// Null: they cannot be seen.
    structures: Option<Vec<Place>>,
    /// Null: they cannot be read yet.
    features: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Line {
    what: &'static str,
    result: &'static str,
    found: String,
    mend: Option<String>,
}

/// Where a structure of virtio's is.
#[derive(Serialize)]
struct Place {
    structure: &'static str,
    bar: u8,
    offset: u64,
    len: u64,
}

impl Line {
    fn new(finding: Finding) -> Self {
        Self {
            what: finding.what,
            result: match finding.verdict {
                sysfs::Verdict::Pass => "pass",
                sysfs::Verdict::Fail => "fail",
                sysfs::Verdict::Unknown => "unknown",
            },
            found: finding.found,
            mend: finding.mend,
        }
    }

    fn features(result: &'static str, found: String, mend: Option<String>) -> Self {
        Self {
            what: "features",
            result,
            found,
            mend,
        }
    }
}

/// Examines one function.
pub(super) fn run(
    host: &Host,
    root: &Path,
    at: Address,
    output: &mut Output,
) -> Result<Verdict, Failure> {
    let function = host.function(at).map_err(failed)?;
    let findings = sysfs::examine(host, &function);
    let mut lines: Vec<Line> = findings.into_iter().map(Line::new).collect();
    let mut structures = host.layout(&function).ok().map(|layout| places(&layout));
    let mut features = None;
    if function.identity().is_virtio() {
        let blocked = |line: &&Line| match line.result {
            "pass" => false,
            // Who may not read all of configuration space may all the same be given the function.
            "unknown" => line.what != sysfs::REGISTERS,
            _ => true,
        };
        let line = match lines.iter().find(blocked) {
            Some(line) => Line::features(
                "unknown",
                format!("not readable until {} passes", line.what),
                None,
            ),
            None if root != Path::new("/") => Line::features(
                "unknown",
                "not readable in a copy of a machine".to_owned(),
                Some(format!("vdpactl vfio doctor {at}, on the machine")),
            ),
            None => match opened(root, at) {
                Ok((layout, names)) => {
                    if let Some(line) = lines.iter_mut().find(|line| line.result == "unknown") {
                        let found = "virtio's structures were found through VFIO".to_owned();
                        (line.result, line.found, line.mend) = ("pass", found, None);
                    }
                    structures.get_or_insert(layout);
                    let found = names.join(" ");
                    features = Some(names);
                    Line::features("pass", found, None)
                }
                Err(error) => unopened(at, error),
            },
        };
        lines.push(line);
    }
    let count = |result| lines.iter().filter(|line| line.result == result).count();
    let report = Report {
        passed: count("pass"),
        failed: count("fail"),
        unknown: count("unknown"),
        function: Row::of(&function),
        structures,
        features,
        lines,
    };
    tell(at, &report, output)?;
    output.object(&report)?;
    Ok(Verdict::well_if(report.failed == 0))
}

/// With what the system said, which is among the error's sources, and where more is to be seen.
fn unopened(at: Address, error: vdpa::Error) -> Line {
    let mend = format!("what it says; more: dmesg, and vdpactl --trace=debug dev show vfio:{at}");
    let found = format!("{:#}", anyhow::Error::new(error));
    Line::features("fail", found, Some(mend))
}

/// Where a function's structures are, and the names of what it offers. It is opened and reset for that.
fn opened(root: &Path, at: Address) -> Result<(Vec<Place>, Vec<String>), vdpa::Error> {
    let spec = DeviceSpec::parse(&format!("vfio:{at}"))?;
    let device = VirtioPci::open(VfioMgmt::at(root).function(&spec)?)?;
    let names = device.offered().names(device.info().device_type);
    let names = names.map(|name| name.to_string()).collect();
    Ok((places(device.layout()), names))
}

fn places(layout: &Layout) -> Vec<Place> {
    let place = |structure: &Structure| Place {
        structure: match structure.kind {
            Kind::Common => "common",
            Kind::Notify => "notify",
            Kind::Isr => "isr",
            Kind::Device => "device",
            Kind::Window => "pci_cfg",
            Kind::SharedMemory => "shared_memory",
            Kind::Vendor => "vendor",
        },
        bar: structure.bar,
        offset: structure.offset,
        len: structure.len,
    };
    let required = [&layout.common, &layout.notify];
    let optional = [&layout.isr, &layout.device];
    let shared = layout.shared_memory.iter().map(|region| &region.structure);
    let all = required.into_iter().chain(optional.into_iter().flatten());
    all.chain(shared).map(place).collect()
}

fn tell(at: Address, report: &Report, output: &mut Output) -> Result<(), Failure> {
    let paint = output.paint();
    output.say(&paint.heading(at))?;
    for line in &report.lines {
        let mut front = format!("{}  {:<14}", verdict(paint, line.result), line.what);
        for part in filled(line.found.split(' '), WIDTH) {
            output.say(&format!("{front} {part}"))?;
            front = " ".repeat(23);
        }
        if let Some(mend) = &line.mend {
            output.say(&format!("{:<24}{} {mend}", "", paint.faint("mend:")))?;
        }
    }
    let Report {
        passed,
        failed,
        unknown,
        ..
    } = report;
    let total = format!("{passed} passed, {failed} failed, {unknown} unknown");
    output.say(&paint.verdict(*failed == 0, total))?;
    if *failed + *unknown == 0 {
        output.say(&format!("next: vdpactl check vfio:{at} --effort quick"))?;
    }
    Ok(())
}

fn verdict(paint: Paint, result: &str) -> String {
    let word = format!("{result:<7}");
    match result {
        "pass" => paint.good(word),
        "fail" => paint.bad(word),
        _ => paint.figure(word),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_function_that_cannot_be_opened_is_told_with_its_cause_and_a_mend() {
        let error = vdpa::vfio::VfioError::System {
            name: "0000:01:00.0".to_owned(),
            what: "open its device file",
            source: io::Error::other("the cause"),
        };
        let at: Address = "0000:01:00.0".parse().unwrap();
        let line = unopened(at, vdpa::Error::from(error));
        assert_eq!(line.result, "fail");
        assert!(line.found.contains("the cause"), "{}", line.found);
        assert!(line.mend.unwrap().contains("dmesg"));
    }
}
