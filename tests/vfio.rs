//! `vdpactl vfio` on copies of machines: what it lists, finds, changes and takes back.
#![cfg(feature = "cli")]

mod vdpactl;

#[path = "vfio/machine.rs"]
mod machine;

use machine::Machine;
use serde_json::{Value, json};
use vdpactl::{Run, command, ended, keys};

const NET: &str = "0000:01:00.0";
const IGB: &str = "0000:02:00.0";

/// A virtio card, an igb card with virtual functions, and a bridge.
fn machine() -> Machine {
    let machine = Machine::new("virtio-pci igb vfio-pci pcieport");
    machine.function("0000:00:1c.0 8086:a110 060400 pcieport 4");
    machine.function("0000:01:00.0 1af4:1041 020000 virtio-pci 12");
    machine.function("0000:02:00.0 8086:10c9 020000 igb 13");
    machine.attribute(IGB, "sriov_totalvfs", "7");
    machine.attribute(IGB, "sriov_numvfs", "0");
    machine.attribute(IGB, "sriov_vf_device", "10ca");
    machine.attribute(IGB, "sriov_drivers_autoprobe", "1");
    machine.attribute(NET, "config", machine::config());
    machine.attribute(
        NET,
        "resource",
        "0 0 0\n0xfe000000 0xfe000fff 0x40200\n0 0 0\n0 0 0\n0x380000000000 0x380000003fff 0x14220c\n0 0 0\n",
    );
    machine.file("/dev/vfio/vfio", "");
    machine.file(
        "/proc/self/limits",
        "Max locked memory unlimited unlimited bytes\n",
    );
    machine
}

fn vfio(machine: &Machine, line: &str) -> Run {
    let mut command = command(["vfio"]);
    command
        .args(line.split(' '))
        .arg("--root")
        .arg(machine.root());
    ended(&mut command)
}

fn object(machine: &Machine, line: &str) -> serde_json::Map<String, Value> {
    vfio(machine, &format!("{line} --json")).object()
}

// --- list ------------------------------------------------------------------------------------

#[test]
fn list_names_what_is_virtio_or_has_virtual_functions() {
    let machine = machine();
    let run = vfio(&machine, "list");
    assert_eq!(run.code, 0, "{run:?}");
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "function      ids        driver           group    node     what",
            "0000:01:00.0  1af4:1041  virtio-pci       12       none     virtio net",
            "0000:02:00.0  8086:10c9  igb              13       none     not virtio: an Intel igb card, 0 of 7 virtual functions",
            "1 other function is no virtio: --all lists them too",
        ]
    );
    assert_eq!(vfio(&machine, "list --all").stdout.lines().count(), 4);
    let list = object(&machine, "list --all");
    assert_eq!(keys(&list), ["functions", "iommu"]);
    assert_eq!(list["iommu"], true);
    let functions = list["functions"].as_array().unwrap();
    assert_eq!(functions.len(), 3);
    let net = functions[1].as_object().unwrap();
    assert_eq!(
        keys(net),
        [
            "bars",
            "class",
            "device",
            "driver",
            "driver_override",
            "function",
            "group",
            "numa_node",
            "physical",
            "revision",
            "subsystem_device",
            "subsystem_vendor",
            "type",
            "vendor",
            "vfio",
            "vfs",
            "what"
        ]
    );
    assert_eq!(net["vendor"], 0x1af4);
    assert_eq!(net["type"], "net");
    assert_eq!(net["group"], 12);
    assert_eq!(net["driver_override"], Value::Null);
    assert_eq!(
        net["bars"][1],
        json!({"bar": 4, "start": 0x3800_0000_0000_u64, "len": 0x4000, "kind": "memory"})
    );
    assert_eq!(
        functions[2]["vfs"],
        json!({"total": 7, "made": 0, "functions": []})
    );
}

#[test]
fn list_of_a_hostile_machine_has_gaps() {
    let machine = machine();
    for (name, text) in [
        ("vendor", &b"\xff\xfe"[..]),
        ("class", b"0x"),
        ("resource", b"\0\0\0"),
    ] {
        machine.attribute(NET, name, text);
    }
    machine.attribute(IGB, "device", vec![b'9'; 1 << 20]);
    let list = object(&machine, "list");
    let functions = list["functions"].as_array().unwrap();
    assert_eq!(functions[0]["vendor"], Value::Null);
    assert_eq!(functions[0]["what"], "unknown");
    assert_eq!(functions[1]["device"], Value::Null);
    assert_eq!(vfio(&machine, "list").code, 0);
}

#[test]
fn a_machine_without_a_bus_is_refused() {
    let machine = Machine::new("");
    machine.remove("/sys");
    vfio(&machine, "list").failed_with(&["/sys/bus/pci/devices"]);
}

// --- doctor ----------------------------------------------------------------------------------

#[test]
fn doctor_says_what_mends_each_line() {
    let machine = machine();
    let run = vfio(&machine, &format!("doctor {NET}"));
    assert_eq!(run.code, 1, "{run:?}");
    assert!(
        run.stdout
            .contains("fail     driver         virtio-pci has it, not VFIO"),
        "{run:?}"
    );
    assert!(
        run.stdout
            .contains(&format!("mend: vdpactl vfio bind {NET}")),
        "{run:?}"
    );
    let report = object(&machine, &format!("doctor {NET}"));
    for key in [
        "function",
        "passed",
        "failed",
        "unknown",
        "lines",
        "structures",
        "features",
    ] {
        assert!(report.contains_key(key), "{key}");
    }
    assert_eq!(report["failed"], 1);
    assert_eq!(report["features"], Value::Null);
    let lines = report["lines"].as_array().unwrap();
    let driver = lines.iter().find(|line| line["what"] == "driver").unwrap();
    assert_eq!(driver["result"], "fail");
    let root = machine.root().display();
    assert_eq!(
        driver["mend"],
        format!("vdpactl vfio bind {NET} --root {root}")
    );
    let structures = report["structures"].as_array().unwrap();
    assert_eq!(
        structures[0],
        json!({"structure": "common", "bar": 4, "offset": 0, "len": 0x1000})
    );
}

#[test]
fn doctor_has_nothing_to_say_against_a_function_that_was_bound() {
    let machine = machine();
    assert_eq!(vfio(&machine, &format!("bind {NET}")).code, 0);
    let run = vfio(&machine, &format!("doctor {NET}"));
    assert_eq!(run.code, 0, "{run:?}");
    let report = object(&machine, &format!("doctor {NET}"));
    // Only its features: nothing can be opened in a copy.
    let lines = report["lines"].as_array().unwrap();
    let other: Vec<&Value> = lines
        .iter()
        .filter(|line| line["result"] != "pass")
        .collect();
    assert_eq!(other.len(), 1, "{other:?}");
    assert_eq!(other[0]["what"], "features");
    assert_eq!(other[0]["result"], "unknown");
}

#[test]
fn doctor_names_who_else_is_in_a_group_that_is_not_viable() {
    let machine = machine();
    machine.function("0000:01:00.1 8086:10d3 020000 igb 12");
    vfio(&machine, &format!("bind {NET}"));
    let run = vfio(&machine, &format!("doctor {NET}"));
    assert_eq!(run.code, 1, "{run:?}");
    for words in [
        "0000:01:00.1 (igb)",
        "not viable",
        "vdpactl vfio bind 0000:01:00.1",
    ] {
        assert!(run.stdout.contains(words), "{words}: {run:?}");
    }
}

#[test]
fn doctor_refuses_what_is_not_virtio_by_name() {
    let machine = machine();
    vfio(&machine, &format!("vf create {IGB} 1"));
    let run = vfio(&machine, "doctor 0000:02:00.1");
    assert_eq!(run.code, 1, "{run:?}");
    assert!(
        run.stdout.contains("not virtio: a VF of an Intel igb card"),
        "{run:?}"
    );
}

#[test]
fn functions_that_are_not_there_are_bad_input() {
    let machine = machine();
    for verb in ["doctor", "bind", "unbind", "restore"] {
        vfio(&machine, &format!("{verb} 0000:09:00.0")).is_refused_with(&["0000:09:00.0"]);
        vfio(&machine, &format!("{verb} eth0")).is_refused_with(&["eth0", "0000:01:00.0"]);
    }
}

// --- bind, unbind, restore -------------------------------------------------------------------

#[test]
fn bind_and_unbind_are_told_as_objects() {
    let machine = machine();
    let bound = object(&machine, &format!("bind {NET}"));
    assert_eq!(
        keys(&bound),
        ["done", "driver", "function", "group", "in_the_way", "steps"]
    );
    assert_eq!(
        bound["driver"],
        json!({"before": "virtio-pci", "after": "vfio-pci"})
    );
    assert_eq!(bound["steps"].as_array().unwrap().len(), 3);
    assert_eq!(machine.driver(NET).as_deref(), Some("vfio-pci"));
    let again = object(&machine, &format!("bind {NET}"));
    assert_eq!(again["steps"], json!([]));
    let run = vfio(&machine, &format!("unbind {NET}"));
    assert_eq!(
        run.stdout,
        format!("{NET} was with vfio-pci, is with virtio-pci\n")
    );
    assert_eq!(machine.driver(NET).as_deref(), Some("virtio-pci"));
    let run = vfio(&machine, "restore");
    assert!(
        run.code == 0 && run.stdout.contains("nothing to restore"),
        "{run:?}"
    );
}

#[test]
fn a_dry_run_prints_what_a_shell_would_do() {
    let machine = machine();
    let run = vfio(&machine, &format!("bind {NET} --dry-run"));
    assert_eq!(
        run.stdout,
        "echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override\n\
         echo 0000:01:00.0 > /sys/bus/pci/drivers/virtio-pci/unbind\n\
         echo 0000:01:00.0 > /sys/bus/pci/drivers_probe\n"
    );
    let run = vfio(&machine, &format!("vf create {IGB} 2 --dry-run"));
    assert_eq!(run.stdout.lines().count(), 2, "{run:?}");
    assert_eq!(
        object(&machine, &format!("bind {NET} --dry-run"))["done"],
        false
    );
    assert_eq!(machine.driver(NET).as_deref(), Some("virtio-pci"));
    assert!(!machine.path("/run").exists());
}

#[test]
fn restore_takes_everything_back() {
    let machine = machine();
    for line in [
        &format!("bind {NET}"),
        &format!("vf create {IGB} 2"),
        "bind 0000:02:00.1",
    ] {
        let run = vfio(&machine, line);
        assert_eq!(run.code, 0, "{run:?}");
    }
    let run = vfio(&machine, "restore --dry-run");
    assert!(run.stdout.contains("echo 0 > "), "{run:?}");
    // What is said to be written is what is written then.
    assert!(
        run.stdout
            .contains("0000:02:00.1 goes with those of 0000:02:00.0"),
        "{run:?}"
    );
    let would = object(&machine, "restore --dry-run");
    let restored = object(&machine, "restore");
    assert_eq!(restored["failed"], json!([]));
    assert_eq!(restored["restored"].as_array().unwrap().len(), 3);
    for (would, did) in [0, 1, 2].map(|at| (&would["restored"][at], &restored["restored"][at])) {
        assert_eq!(would["steps"], did["steps"]);
    }
    assert_eq!(machine.driver(NET).as_deref(), Some("virtio-pci"));
    assert_eq!(machine.text(IGB, "sriov_numvfs"), "0\n");
    assert_eq!(machine.text(IGB, "sriov_drivers_autoprobe"), "1\n");
    assert!(!machine.path("/sys/bus/pci/devices/0000:02:00.1").exists());
}

#[test]
fn restore_says_what_became_of_each() {
    let machine = machine();
    vfio(&machine, &format!("vf create {IGB} 1"));
    vfio(&machine, "bind 0000:02:00.1");
    let run = vfio(&machine, "restore");
    assert_eq!(
        run.stdout,
        "0000:02:00.0 has 0 virtual functions again\n\
         0000:02:00.1 is gone: nothing to restore\n"
    );
}

#[test]
fn restore_goes_on_after_one_that_cannot_be() {
    let machine = machine();
    machine.function("0000:03:00.0 1af4:1042 010000 virtio-pci 14");
    for at in [NET, "0000:03:00.0"] {
        vfio(&machine, &format!("bind {at}"));
    }
    machine.attribute(NET, "device", "0x1042");
    let run = vfio(&machine, "restore --json");
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("1af4:1041"), "{run:?}");
    let object = run.object();
    assert_eq!(object["failed"][0]["function"], NET);
    assert_eq!(object["restored"][0]["function"], "0000:03:00.0");
    assert_eq!(
        machine.driver("0000:03:00.0").as_deref(),
        Some("virtio-pci")
    );
}

#[test]
fn what_is_in_use_is_spared_unless_forced() {
    let machine = machine();
    machine.interface(NET, "eth0");
    let refused = vfio(&machine, &format!("bind {NET}"));
    refused.failed_with(&["eth0 is up", "--force"]);
    assert_eq!(machine.driver(NET).as_deref(), Some("virtio-pci"));
    assert_eq!(vfio(&machine, &format!("bind {NET} --force")).code, 0);
    assert_eq!(machine.driver(NET).as_deref(), Some("vfio-pci"));
}

#[test]
fn bind_refuses_with_the_way_out() {
    let machine = machine();
    vfio(&machine, "bind 0000:00:1c.0").is_refused_with(&["bridge"]);
    machine.remove("/sys/bus/pci/drivers/vfio-pci");
    vfio(&machine, &format!("bind {NET}")).is_refused_with(&["modprobe vfio-pci"]);
    machine.remove(&format!("/sys/bus/pci/devices/{NET}/iommu_group"));
    machine.file("/proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
    vfio(&machine, &format!("bind {NET}")).is_refused_with(&["IOMMU", "VT-d", "intel_iommu=on"]);
}

#[test]
fn a_root_that_is_this_machine_is_not_changed() {
    for root in ["/..", "/proc/self/root"] {
        for line in [
            "bind 0000:01:00.0",
            "unbind 0000:01:00.0",
            "restore",
            "vf create 0000:01:00.0 1",
        ] {
            let mut command = command(["vfio"]);
            command.args(line.split(' ')).args(["--root", root]);
            ended(&mut command).is_refused_with(&[root, "no copy", "--root"]);
        }
    }
}

/// Makes a copy of a machine with the guide's own script.
fn copied(machine: &Machine) -> tempfile::TempDir {
    let guide = include_str!("../docs/lab-machine.md");
    let script = guide
        .split("```sh\n")
        .find(|block| block.starts_with("copy="));
    let script = script.unwrap().split("\nvdpactl").next().unwrap();
    let from = format!("cd {} ", machine.root().display());
    assert!(script.contains("cd / "), "{script}");
    let home = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("bash")
        .args(["-uc", &script.replace("cd / ", &from)])
        .current_dir(home.path())
        .output()
        .unwrap();
    assert!(made.status.success() && made.stderr.is_empty(), "{made:?}");
    home
}

#[test]
fn a_copy_made_as_the_guide_says_has_what_doctor_finds() {
    let machine = machine();
    machine.file("/proc/cmdline", "intel_iommu=on\n");
    machine.file("/sys/class/net/.keep", "");
    machine.interface(IGB, "eth0");
    machine.file(
        "/proc/net/route",
        "eth0 00000000 0 0 0 0 0 00000000 0 0 0\n",
    );
    assert_eq!(vfio(&machine, &format!("bind {NET}")).code, 0);
    machine.attribute(NET, "vfio-dev/vfio0/dev", "511:0\n");
    machine.file("/dev/vfio/devices/vfio0", "");
    let home = copied(&machine);
    let root = home.path().join("copy");
    for line in [
        format!("doctor {NET}"),
        format!("doctor {IGB}"),
        "list --all".to_owned(),
    ] {
        let mut command = command(["vfio"]);
        command.args(line.split(' ')).arg("--root").arg(&root);
        let (copy, of) = (ended(&mut command), vfio(&machine, &line));
        // Each names itself in what mends it.
        let [copied, original] = [(&copy, &root), (&of, &machine.root().to_owned())]
            .map(|(run, root)| run.stdout.replace(root.to_str().unwrap(), "ROOT"));
        assert_eq!(copied, original, "{line}");
        assert_eq!(copy.code, of.code, "{line}");
    }
    // And it can be changed as a machine can.
    let mut command = command(["vfio", "unbind", NET]);
    let run = ended(command.arg("--root").arg(root));
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(machine.driver(NET).as_deref(), Some("vfio-pci"));
}

#[test]
fn records_are_kept_where_they_are_wanted() {
    let machine = machine();
    let state = tempfile::tempdir().unwrap();
    let line = |verb: &str| format!("{verb} --state {}", state.path().display());
    assert_eq!(vfio(&machine, &line(&format!("bind {NET}"))).code, 0);
    assert!(state.path().join(NET).exists() && !machine.path("/run").exists());
    // A place that is made for them, from where the command is run.
    let mut command = command(["vfio", "bind", IGB, "--state", "made/here", "--root"]);
    let run = ended(command.arg(machine.root()).current_dir(state.path()));
    assert_eq!(run.code, 0, "{run:?}");
    assert!(state.path().join("made/here").join(IGB).exists());
    // Damaged, it is not acted on.
    std::fs::write(state.path().join(NET), "driver ../../etc\n").unwrap();
    let run = vfio(&machine, &line("restore"));
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("no record of a change"), "{run:?}");
    assert_eq!(machine.driver(NET).as_deref(), Some("vfio-pci"));
}

#[test]
fn what_the_system_is_in_the_way_of_is_no_bad_input() {
    let machine = machine();
    let lock = machine.path("/run/vdpactl/vfio/lock");
    machine.file("/run/vdpactl/vfio/lock", "");
    let held = std::fs::File::open(lock).unwrap();
    held.lock().unwrap();
    vfio(&machine, &format!("bind {NET}")).failed_with(&["is locked"]);
    drop(held);
    machine.remove("/run");
    machine.file("/run", "no directory");
    vfio(&machine, &format!("bind {NET}")).failed_with(&["/run/vdpactl/vfio"]);
    assert_eq!(vfio(&machine, "restore").code, 1);
}

#[test]
fn what_is_to_be_a_directory_is_one() {
    let machine = machine();
    let root = machine.root().join("nowhere");
    let root = root.to_str().unwrap();
    for verb in [
        "list",
        "doctor 0000:01:00.0",
        "bind 0000:01:00.0",
        "restore",
    ] {
        let mut command = command(["vfio"]);
        command.args(verb.split(' ')).args(["--root", root]);
        ended(&mut command).is_refused_with(&["--root", root, "directory"]);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let state = file.path().to_str().unwrap();
    vfio(&machine, &format!("bind {NET} --state {state}")).is_refused_with(&["--state", state]);
    assert_eq!(machine.driver(NET).as_deref(), Some("virtio-pci"));
}

#[test]
fn names_of_a_copy_cannot_write_to_the_terminal() {
    let machine = machine();
    machine.attribute(NET, "driver_override", "evil\x1b[31m");
    let driver = machine.path(&format!("/sys/bus/pci/devices/{NET}/driver"));
    std::fs::remove_file(&driver).unwrap();
    std::os::unix::fs::symlink("../../../bus/pci/drivers/evil\x1b[31m\nname", driver).unwrap();
    for verb in [
        "list --all",
        &format!("doctor {NET}"),
        &format!("bind {NET}"),
    ] {
        for json in ["", " --json"] {
            let run = vfio(&machine, &format!("{verb}{json}"));
            let said = format!("{}{}", run.stdout, run.stderr);
            assert!(!said.contains('\x1b') && !said.contains("\nname"), "{said}");
        }
    }
}

#[test]
fn completions_know_the_verbs() {
    let script = ended(&mut command(["completions", "bash"])).stdout;
    for verb in ["vfio", "doctor", "unbind", "restore", "--dry-run"] {
        assert!(script.contains(verb), "{verb}");
    }
}

// --- vf create -------------------------------------------------------------------------------

#[test]
fn virtual_functions_are_made_and_taken_away() {
    let machine = machine();
    let made = object(&machine, &format!("vf create {IGB} 2"));
    assert_eq!(made["vfs"], json!(["0000:02:00.1", "0000:02:00.2"]));
    let run = vfio(&machine, "list");
    assert!(run.stdout.contains("of 0000:02:00.0"), "{run:?}");
    let gone = vfio(&machine, &format!("vf create {IGB} 0"));
    assert_eq!(
        gone.stdout,
        format!("{IGB} has no virtual functions any more\n")
    );
}

#[test]
fn impossible_virtual_functions_are_refused_with_numbers() {
    let machine = machine();
    vfio(&machine, &format!("vf create {IGB} 8")).is_refused_with(&["7", "8"]);
    vfio(&machine, &format!("vf create {NET} 1")).is_refused_with(&["SR-IOV"]);
    for count in ["-1", "many", "65536"] {
        assert_eq!(vfio(&machine, &format!("vf create {IGB} {count}")).code, 2);
    }
}

trait Refused {
    fn failed_with(&self, words: &[&str]);
}

impl Refused for Run {
    /// It was no bad input: something was in the way.
    #[track_caller]
    fn failed_with(&self, words: &[&str]) {
        assert_eq!((self.code, &*self.stdout), (1, ""), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "{word:?}: {self:?}");
        }
    }
}
