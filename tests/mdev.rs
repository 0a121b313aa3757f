//! `vdpactl mdev` on copies of machines, beside the system's `mdevctl`, which sees a copy as its own machine.
#![cfg(feature = "cli")]

mod vdpactl;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::{Map, Value, json};
use vdpactl::{Run, command, ended, keys};

const A: &str = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001";
const B: &str = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1002";
const CONFIG: &str = "/etc/mdevctl.d";

/// A copy of a machine: a serial port with two types, and a display.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        machine.kind("mtty", "mtty-1", "24");
        machine.kind("mtty", "mtty-2", "0");
        machine.kind("mdpy", "mdpy-xga", "16");
        let name = "/sys/devices/virtual/x/mtty/mdev_supported_types/mtty-1/name";
        machine.file(name, "Single port serial\n");
        for directory in [
            "/etc/mdevctl.d/scripts.d/callouts",
            "/etc/mdevctl.d/scripts.d/notifiers",
            "/sys/bus/mdev/devices",
        ] {
            fs::create_dir_all(machine.path(directory)).unwrap();
        }
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path.trim_start_matches('/'))
    }

    fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn kind(&self, parent: &str, kind: &str, available: &str) {
        let home = format!("/sys/devices/virtual/x/{parent}");
        let at = |name: &str| format!("{home}/mdev_supported_types/{kind}/{name}");
        self.file(&at("device_api"), "vfio-pci\n");
        self.file(&at("available_instances"), format!("{available}\n"));
        self.file(&at("create"), "");
        let link = self.path(&format!("/sys/class/mdev_bus/{parent}"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        if fs::symlink_metadata(&link).is_err() {
            symlink(format!("../../devices/virtual/x/{parent}"), link).unwrap();
        }
    }

    fn mdev(&self, line: &str) -> Run {
        let mut command = command(["mdev"]);
        command
            .args(line.split(' '))
            .arg("--root")
            .arg(self.0.path());
        ended(&mut command)
    }

    fn done(&self, line: &str) -> Map<String, Value> {
        let run = self.mdev(&format!("{line} --json"));
        assert_eq!(run.code, 0, "{run:?}");
        run.object()
    }

    /// Runs mdevctl where this is the machine. `None`: it cannot be run, which is said.
    fn mdevctl(&self, line: &str) -> Option<Output> {
        const INSIDE: &str = r#"mount --bind "$0/etc/mdevctl.d" /etc/mdevctl.d && mount --bind "$0/sys" /sys && exec "$@""#;
        let mut unshare = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            unshare.arg("--map-root-user");
        }
        unshare.args(["--mount", "sh", "-c", INSIDE]);
        unshare
            .arg(self.0.path())
            .arg("mdevctl")
            .args(line.split(' '));
        let output = unshare.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let refused = said.contains("unshare:") || said.contains("mount:");
        if refused {
            println!(
                "SKIP {}: no mount namespace: {} (run as root)",
                test_name(),
                said.trim()
            );
        }
        (!refused).then_some(output)
    }

    /// The same, which is to go well.
    fn mdevctl_done(&self, line: &str) -> Option<String> {
        let output = self.mdevctl(line)?;
        assert!(output.status.success(), "mdevctl {line}: {output:?}");
        Some(String::from_utf8(output.stdout).unwrap())
    }
}

/// The test that runs: the harness names its thread after it.
fn test_name() -> String {
    let thread = std::thread::current();
    thread.name().unwrap_or("mdev").to_owned()
}

/// Whether it is there; if not, that is said.
fn has_mdevctl() -> bool {
    let there = Command::new("mdevctl").arg("--help").output().is_ok();
    if !there {
        println!(
            "SKIP {}: not installed: mdevctl (apt-get install mdevctl)",
            test_name()
        );
    }
    there
}

// --- types, list, create, remove -------------------------------------------------------------

#[test]
fn types_are_listed_with_how_many_are_left() {
    let machine = Machine::new();
    let run = machine.mdev("types");
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{run:?}");
    assert!(lines[0].starts_with("type  "), "{run:?}");
    let row: Vec<_> = lines[2].split_whitespace().collect();
    assert_eq!(
        row,
        [
            "mtty-1", "mtty", "24", "vfio-pci", "Single", "port", "serial"
        ]
    );
    let types = machine.done("types --parent mtty");
    assert_eq!(keys(&types), ["parents"]);
    let kinds = &types["parents"][0]["types"];
    assert_eq!(
        kinds[0],
        json!({"type": "mtty-1", "name": "Single port serial", "description": null,
            "device_api": "vfio-pci", "available_instances": 24})
    );
    for verb in ["types", "list"] {
        machine
            .mdev(&format!("{verb} --parent tty"))
            .is_refused_with(&["no device tty", "mdpy, mtty"]);
    }
    let nothing = tempfile::tempdir().unwrap();
    let run = ended(command(["mdev", "types", "--root"]).arg(nothing.path()));
    assert!(
        run.code == 0 && run.stdout.contains("nothing here"),
        "{run:?}"
    );
}

#[test]
fn what_is_no_text_is_shown_and_lines_are_put_into_one() {
    let machine = Machine::new();
    let types = "/sys/devices/virtual/x/mtty/mdev_supported_types";
    machine.file(&format!("{types}/mtty-1/name"), b"Serial \xff\n");
    let description = format!("{types}/mtty-1/description");
    machine.file(&description, "ports: 1\nspeed: 9600\n");
    let odd = machine.path(types).join(OsStr::from_bytes(b"odd-\xff"));
    fs::create_dir_all(odd).unwrap();
    let run = machine.mdev("types");
    for words in ["Serial \u{fffd}: ports: 1 speed: 9600\n", "odd-\u{fffd}"] {
        assert!(run.stdout.contains(words), "{words}: {run:?}");
    }
    let types = machine.done("types --parent mtty");
    let kinds = &types["parents"][0]["types"];
    assert_eq!(kinds[0]["name"], "Serial \u{fffd}");
    assert_eq!(kinds[0]["description"], "ports: 1\nspeed: 9600");
    assert_eq!(kinds[2]["type"], "odd-\u{fffd}");
    assert!(kinds[2]["available_instances"].is_null(), "{kinds}");
}

#[test]
fn a_device_comes_is_listed_and_goes() {
    let machine = Machine::new();
    let made = machine.done(&format!("create mtty-1 {A}"));
    assert_eq!(
        keys(&made),
        [
            "active",
            "defined",
            "device_api",
            "driver",
            "group",
            "parent",
            "spec",
            "type",
            "uuid",
            "vfio_device"
        ]
    );
    assert_eq!(made["spec"], format!("mdev:{A}"));
    assert_eq!(made["driver"], "mtty");
    let again = machine.mdev(&format!("create mtty-1 {A}"));
    again.is_refused_with(&[A, "already", "mtty-1 of mtty"]);
    let named = machine.done("create mdpy-xga");
    let list = machine.done("list");
    assert_eq!(keys(&list), ["broken", "devices"]);
    assert_eq!(list["devices"].as_array().unwrap().len(), 2);
    let only = machine.done("list --parent mdpy");
    assert_eq!(only["devices"][0]["uuid"], named["uuid"]);
    let run = machine.mdev("list");
    assert!(
        run.stdout.contains(A) && run.stdout.contains("active"),
        "{run:?}"
    );
    assert_eq!(machine.done(&format!("remove {A}"))["removed"], A);
    machine
        .mdev(&format!("remove {A}"))
        .is_refused_with(&[A, "vdpactl mdev list"]);
    assert_eq!(machine.done("list")["devices"].as_array().unwrap().len(), 1);
}

#[test]
fn bad_input_is_named_and_nothing_is_made() {
    let machine = Machine::new();
    machine
        .mdev("create mtty-1 mtty")
        .is_refused_with(&["`mtty` is no UUID"]);
    machine
        .mdev("remove x")
        .is_refused_with(&["`x` is no UUID"]);
    let types = "mdpy-xga, mtty-1, mtty-2";
    machine
        .mdev("create mtty-9")
        .is_refused_with(&["mtty-9", types]);
    machine
        .mdev("define mtty-9")
        .is_refused_with(&["mtty-9", types]);
    machine
        .mdev("define mtty-9 --parent mtty")
        .is_refused_with(&["mtty-9", "mtty-1, mtty-2"]);
    machine
        .mdev("create mtty-1 --parent tty")
        .is_refused_with(&["tty", "mdpy, mtty"]);
    machine
        .mdev(&format!("start {A}"))
        .is_refused_with(&[A, "not defined"]);
    machine
        .mdev(&format!("undefine {A}"))
        .is_refused_with(&[A, "not defined"]);
    machine
        .mdev("define mtty-1 --attr x")
        .is_refused_with(&["--attr"]);
    machine
        .mdev("define mtty-1 --parent ../x")
        .is_refused_with(&["../x"]);
    machine.kind("mt\x1bty", "loud\x1b-1", "1");
    let run = machine.mdev("types");
    assert!(
        run.stdout.contains("loud\\u{1b}-1") && !run.stdout.contains('\x1b'),
        "{run:?}"
    );
    machine
        .mdev("create mtty-2")
        .is_refused_with(&["mtty can make no more mtty-2"]);
    machine
        .mdev("define  --parent x")
        .is_refused_with(&["`` cannot be the name of a type"]);
    ended(&mut command(["mdev", "types", "--root", "/no/such/root"]))
        .is_refused_with(&["--root /no/such/root", "no such directory"]);
    let mut bytes = command(["mdev", "create"]);
    bytes
        .arg(OsStr::from_bytes(b"mtty-\xff"))
        .arg("--root")
        .arg(machine.0.path());
    let refused = ended(&mut bytes);
    refused.is_refused_with(&["argument 3, `mtty-\u{fffd}`, is no text"]);
    assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
    let list = machine.done("list");
    assert_eq!(
        list,
        *json!({"devices": [], "broken": []}).as_object().unwrap()
    );
}

// --- definitions -----------------------------------------------------------------------------

#[test]
fn a_definition_is_started_with_its_attributes_or_not_at_all() {
    let machine = Machine::new();
    machine.done(&format!("define mtty-1 {A} --auto"));
    machine
        .mdev(&format!("define mtty-1 {A}"))
        .is_refused_with(&[A, "defined already"]);
    let started = machine.done(&format!("start {A}"));
    assert_eq!(started["defined"], json!({"start": "auto", "attrs": []}));
    machine
        .mdev(&format!("start {A}"))
        .is_refused_with(&[A, "is made already (mtty-1 of mtty)"]);
    let run = machine.mdev("list");
    assert!(run.stdout.contains("active, defined auto"), "{run:?}");
    machine.done(&format!("define mtty-1 {B} --attr speed=9600"));
    let run = machine.mdev(&format!("start {B}"));
    assert_eq!(run.code, 1, "{run:?}");
    assert!(
        run.stderr.contains("speed") && run.stderr.contains("removed again"),
        "{run:?}"
    );
    let list = machine.done("list");
    assert_eq!(list["devices"][1]["active"], false);
    assert_eq!(machine.done(&format!("undefine {A}"))["parent"], "mtty");
    assert_eq!(
        machine.done("list")["devices"][0]["active"],
        true,
        "the device stays"
    );
}

#[test]
fn an_attribute_of_the_kernels_is_not_written_and_no_success() {
    let machine = Machine::new();
    machine.done(&format!("define mtty-1 {A} --attr remove=1"));
    let run = machine.mdev(&format!("start {A}"));
    assert_eq!(run.code, 1, "{run:?}");
    assert!(
        run.stderr.contains("remove") && run.stderr.contains("the kernel's"),
        "{run:?}"
    );
    assert_eq!(machine.done("list")["devices"][0]["active"], false);
}

#[test]
fn scripts_of_mdevctls_that_are_not_run_are_told_of() {
    let machine = Machine::new();
    let define = format!("define mtty-1 {A}");
    let quiet = machine.mdev(&define);
    assert_eq!((quiet.code, quiet.stderr.as_str()), (0, ""), "{quiet:?}");
    machine.file("/etc/mdevctl.d/scripts.d/callouts/ap-check", "#!/bin/sh\n");
    machine.file("/usr/lib/mdevctl/scripts.d/notifiers/tell", "#!/bin/sh\n");
    for line in ["start", "remove", "undefine"] {
        let run = machine.mdev(&format!("{line} {A}"));
        assert_eq!(run.code, 0, "{run:?}");
        let said = ["warning:", "callouts/ap-check and 1 more", "not run here"];
        assert!(
            said.iter().all(|word| run.stderr.contains(word)),
            "{line}: {run:?}"
        );
    }
    let run = machine.mdev("list");
    assert_eq!(run.stderr, "", "{run:?}");
}

#[test]
fn a_broken_definition_is_named_with_its_line_and_kept() {
    let machine = Machine::new();
    machine.done(&format!("define mtty-1 {B}"));
    let path = format!("{CONFIG}/mtty/{A}");
    machine.file(
        &path,
        "{\n  \"mdev_type\": \"mtty-1\",\n  \"start\": 1\n}\n",
    );
    let run = machine.mdev("list");
    assert_eq!(run.code, 0, "{run:?}");
    assert!(
        run.stdout.contains(B) && run.stdout.contains(&format!("{A}, line 3: ")),
        "{run:?}"
    );
    let broken = &machine.done("list")["broken"][0];
    assert_eq!(broken["line"], 3);
    for line in ["start", "undefine", "define mtty-1"] {
        machine
            .mdev(&format!("{line} {A}"))
            .is_refused_with(&[A, "line 3", "remove it by hand"]);
    }
    assert!(machine.path(&path).exists());
    machine.file(&path, "{");
    assert_eq!(machine.done("list")["broken"][0]["line"], 1);
    let Some(output) = has_mdevctl()
        .then(|| machine.mdevctl("list --defined"))
        .flatten()
    else {
        return;
    };
    // As docs/mediated-devices.md says.
    assert!(
        !String::from_utf8_lossy(&output.stdout).contains(B),
        "{output:?}"
    );
}

#[test]
fn mdevctl_lists_what_is_defined_here() {
    if !has_mdevctl() {
        return;
    }
    let machine = Machine::new();
    machine.done(&format!(
        "define mtty-1 {A} --auto --attr b=2 --attr dir/a=1"
    ));
    machine.done(&format!("define nv-35 {B} --parent 0000:41:00.0"));
    let Some(listed) = machine.mdevctl_done("list --defined --dumpjson") else {
        return;
    };
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        listed,
        json!([{
            "0000:41:00.0": [{B: {"mdev_type": "nv-35", "start": "manual", "attrs": []}}],
            "mtty": [{A: {"mdev_type": "mtty-1", "start": "auto", "attrs": [{"b": "2"}, {"dir/a": "1"}]}}],
        }])
    );
    machine.mdevctl_done(&format!("undefine --uuid {A}"));
    let left = machine.done("list");
    assert_eq!(left["devices"].as_array().unwrap().len(), 1, "{left:?}");
}

#[test]
fn what_mdevctl_defines_is_read_here_and_would_be_written_the_same() {
    if !has_mdevctl() {
        return;
    }
    let (theirs, ours) = (Machine::new(), Machine::new());
    let define = format!("define --uuid {A} --parent mtty --type mtty-1 --auto");
    if theirs.mdevctl_done(&define).is_none() {
        return;
    }
    theirs.mdevctl_done(&format!("modify --uuid {A} --addattr dir/a --value x=1"));
    theirs.mdevctl_done(&format!("modify --uuid {A} --addattr b --value \u{e4}"));
    let listed = theirs.done("list");
    assert_eq!(
        listed["devices"][0]["defined"],
        json!({"start": "auto", "attrs": [{"name": "dir/a", "value": "x=1"}, {"name": "b", "value": "\u{e4}"}]})
    );
    ours.done(&format!(
        "define mtty-1 {A} --auto --attr dir/a=x=1 --attr b=\u{e4}"
    ));
    let bytes = |machine: &Machine| fs::read(machine.path(&format!("{CONFIG}/mtty/{A}"))).unwrap();
    assert_eq!(
        String::from_utf8(bytes(&theirs)).unwrap(),
        String::from_utf8(bytes(&ours)).unwrap()
    );
}

#[test]
fn mdevctl_sees_the_same_types_and_devices() {
    if !has_mdevctl() {
        return;
    }
    let machine = Machine::new();
    machine.done(&format!("create mtty-1 {A}"));
    let Some(types) = machine.mdevctl_done("types --dumpjson") else {
        return;
    };
    let types: Value = serde_json::from_str(&types).unwrap();
    let kind =
        json!({"device_api": "vfio-pci", "available_instances": 23, "name": "Single port serial"});
    assert_eq!(types[0]["mtty"][0]["mtty-1"], kind);
    let active = machine.mdevctl_done("list --dumpjson").unwrap();
    let active: Value = serde_json::from_str(&active).unwrap();
    assert_eq!(active[0]["mtty"][0][A]["mdev_type"], "mtty-1", "{active}");
}
