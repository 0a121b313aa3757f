//! Device strings as people type them, and as nobody would.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::bits::{self, net};
use crate::config::Mac;
use crate::device_type::DeviceType;
use crate::features::Features;

fn spec(text: &str) -> DeviceSpec {
    DeviceSpec::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn wrong(text: &str) -> SpecError {
    DeviceSpec::parse(text).unwrap_err()
}

#[test]
fn a_string_falls_into_parent_what_and_keys() {
    let spec = spec("sim:net,mac=52:54:00:00:00:01,port=pcap:a.pcap:b=1.pcap,x=");
    assert_eq!((spec.parent(), spec.what()), ("sim", "net"));
    assert_eq!(
        spec.pairs().collect::<Vec<_>>(),
        [
            ("mac", "52:54:00:00:00:01"),
            ("port", "pcap:a.pcap:b=1.pcap"),
            ("x", ""),
        ]
    );
    assert_eq!(spec.to_string().parse(), Ok(spec));
}

#[test]
fn what_may_hold_colons() {
    assert_eq!(spec("vfio:0000:01:00.1").what(), "0000:01:00.1");
    assert_eq!(
        spec("vhost-vdpa:/dev/vhost-vdpa-0,x=1").what(),
        "/dev/vhost-vdpa-0"
    );
}

#[test]
fn broken_strings_are_refused_at_the_broken_part() {
    for (text, part, says) in [
        ("", "", "there is no `:`"),
        ("sim", "sim", "there is no `:`"),
        ("sim,mac=52:54:00:00:00:01", "sim", "there is no `:`"),
        (":net", "", "the parent before the `:` is missing"),
        ("sim:", "", "what to open is missing after `sim:`"),
        ("sim:,mac=1", "", "what to open is missing after `sim:`"),
        ("sim:net,", "", "a key is missing"),
        ("sim:net,,mtu=1", "", "a key is missing"),
        ("sim:net,=5", "=5", "a key is missing"),
        ("sim:net,mtu", "mtu", "`mtu` has no value: write mtu=..."),
        ("sim:net,mtu=1,mtu=2", "mtu", "`mtu` is given twice"),
    ] {
        let error = wrong(text);
        assert_eq!(error.part(), part, "{text}");
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(error.text(), text);
    }
    assert_eq!(wrong("sim:net,mtu=1,mtu=2").span(), 14..17);
}

#[test]
fn values_are_read_by_type() {
    let spec = spec(
        "sim:net,mac=52:54:00:00:00:01,mtu=0x5dc,up=off,down=On,size=64M,path=/a b,mode=Fast,serial=A1",
    );
    let mut keys = spec.keys();
    let mac: Option<Mac> = keys.take("mac").unwrap();
    assert_eq!(mac.unwrap().octets(), [0x52, 0x54, 0, 0, 0, 1]);
    assert_eq!(keys.take_in("mtu", 68..=65535u16), Ok(Some(1500)));
    assert_eq!(keys.take::<bool>("up"), Ok(Some(false)));
    assert_eq!(keys.take::<bool>("down"), Ok(Some(true)));
    assert_eq!(keys.take_size("size", 512..=1 << 40), Ok(Some(64 << 20)));
    assert_eq!(keys.take("path"), Ok(Some(PathBuf::from("/a b"))));
    assert_eq!(keys.take("serial"), Ok(Some("A1".to_owned())));
    assert_eq!(
        keys.take_one_of("mode", &[("slow", 1), ("fast", 2)]),
        Ok(Some(2))
    );
    assert_eq!(keys.take::<u32>("absent"), Ok(None));
    assert_eq!(keys.finish(&[]), Ok(()));
}

#[test]
fn an_error_names_the_number_and_the_range() {
    for (value, says) in [
        ("65537", "queue_size 65537 is out of range: 1..=32768"),
        ("0", "queue_size 0 is out of range: 1..=32768"),
        ("-1", "queue_size -1 is out of range: 1..=32768"),
        (
            "99999999999999999999999",
            "queue_size 99999999999999999999999 is out of range: 1..=32768",
        ),
        ("many", "queue_size `many` is not a whole number"),
        ("", "queue_size `` is not a whole number"),
        ("+4", "queue_size `+4` is not a whole number"),
        ("0x", "queue_size `0x` is not a whole number"),
        ("4 ", "queue_size `4 ` is not a whole number"),
    ] {
        let spec = spec(&format!("sim:net,queue_size={value}"));
        let error = spec.keys().take_in("queue_size", 1..=32768u16).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("device `sim:net,queue_size={value}`: {says}")
        );
        assert_eq!(error.part(), value);
    }
}

#[test]
fn an_unknown_key_lists_the_legal_ones_and_the_one_meant() {
    let spec = spec("sim:net,mca=1,mtu=1500");
    let mut keys = spec.keys();
    keys.take::<u16>("mtu").unwrap();
    let error = keys.finish(&["mac", "mtu", "queue_pairs"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "device `sim:net,mca=1,mtu=1500`: there is no key `mca`; \
         did you mean `mac`? (keys: mac, mtu, queue_pairs)"
    );
    assert_eq!(
        error.render(),
        "sim:net,mca=1,mtu=1500\n        ^^^ there is no key `mca`\n\
         did you mean `mac`?\nkeys: mac, mtu, queue_pairs\n"
    );
}

#[test]
fn a_legal_key_that_nobody_took_is_not_passed_over() {
    let spec = spec("sim:net,size=1M");
    let error = spec.keys().finish(&["size"]).unwrap_err();
    assert_eq!(error.problem(), &Problem::UnusedKey { key: "size".into() });
}

#[test]
fn unknown_parents_and_devices_list_the_legal_ones() {
    let error = spec("sum:net").unknown_parent(["sim", "vfio"]);
    assert_eq!(
        error.to_string(),
        "device `sum:net`: no parent is called `sum`; did you mean `sim`? (parents: sim, vfio)"
    );
    let error = spec("sim:disk").unknown_what(["net", "blk"]);
    assert_eq!(error.part(), "disk");
    assert_eq!(error.problem().legal(), ["net", "blk"]);
    assert_eq!(error.problem().suggestion(), None);
}

#[test]
fn sizes_have_units() {
    let read = |text: &str| {
        let spec = spec(&format!("sim:blk,size={text}"));
        spec.keys().take_size("size", 0..=u64::MAX)
    };
    for (text, bytes) in [
        ("0", 0),
        ("4096", 4096),
        ("512b", 512),
        ("4K", 4096),
        ("4kib", 4096),
        ("64M", 64 << 20),
        ("1g", 1 << 30),
        ("2T", 2 << 40),
    ] {
        assert_eq!(read(text), Ok(Some(bytes)), "{text}");
    }
    for text in ["", "M", "4X", "4KK", "-4K", "1.5G", "0x10", "99999999T"] {
        assert!(read(text).is_err(), "{text}");
    }
}

#[test]
fn a_part_of_a_value_is_pointed_at() {
    let spec = spec("sim:net,port=pcap:in.pcap:out.pcap");
    let mut keys = spec.keys();
    let (kind, rest) = keys.value("port").unwrap().split(':');
    let (input, output) = rest.unwrap().split(':');
    let output = output.unwrap();
    assert_eq!(
        (kind.text(), input.text(), output.text()),
        ("pcap", "in.pcap", "out.pcap")
    );
    let error = input.malformed("a file that exists");
    assert_eq!(error.part(), "in.pcap");
    assert_eq!(
        error.to_string(),
        "device `sim:net,port=pcap:in.pcap:out.pcap`: port `in.pcap` is not a file that exists"
    );
    assert_eq!(output.part(3..100).text(), "");
    assert_eq!(kind.unknown(["loopback", "null"]).part(), "pcap");
}

const POSSIBLE: Features = Features::of(&[
    bits::VERSION_1,
    bits::RING_PACKED,
    net::MAC,
    net::MRG_RXBUF,
    net::CTRL_VQ,
    net::CTRL_RX,
    net::MQ,
]);
const DEFAULT: Features = POSSIBLE.without(bits::RING_PACKED);

fn list(text: &str) -> Result<Features, SpecError> {
    let spec = spec(&format!("sim:net,features={text}"));
    let mut keys = spec.keys();
    let set = keys.take_features("features", DeviceType::Net, POSSIBLE, DEFAULT)?;
    Ok(set.unwrap())
}

#[test]
fn a_list_of_features_is_exact_or_on_top_of_the_default() {
    let base = bits::VERSION_1.mask();
    assert_eq!(list("mrg_rxbuf"), Ok(base | net::MRG_RXBUF));
    assert_eq!(
        list("MQ+ctrl_vq+bit-5"),
        Ok(base | net::MQ | net::CTRL_VQ | net::MAC)
    );
    assert_eq!(list("+RING_PACKED"), Ok(POSSIBLE));
    assert_eq!(list("-MRG_RXBUF"), Ok(DEFAULT - net::MRG_RXBUF));
    assert_eq!(list("+ring_packed-bit-15"), Ok(POSSIBLE - net::MRG_RXBUF));
    // What needs the control queue goes with it ...
    assert_eq!(
        list("-CTRL_VQ"),
        Ok(DEFAULT - (net::CTRL_VQ | net::CTRL_RX | net::MQ))
    );
    // ... and taking out what is not there is no error.
    assert_eq!(list("-RSS"), Ok(DEFAULT));
}

#[test]
fn a_wrong_list_of_features_says_which_name_and_why() {
    let error = list("MRG_RXBUF+ctrl_qv").unwrap_err();
    assert_eq!(error.part(), "ctrl_qv");
    assert_eq!(error.problem().suggestion(), Some("CTRL_VQ"));
    assert_eq!(
        error.problem().legal(),
        [
            "MAC",
            "MRG_RXBUF",
            "CTRL_VQ",
            "CTRL_RX",
            "MQ",
            "VERSION_1",
            "RING_PACKED"
        ]
    );
    // A feature of the type that this device does not have.
    assert_eq!(list("RSS+CTRL_VQ").unwrap_err().part(), "RSS");
    let error = list("MQ").unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("MQ needs CTRL_VQ, which is not in the set"),
        "{error}"
    );
    assert!(list("+MQ-CTRL_VQ").is_err());
    assert!(list("-VERSION_1").is_err());
    for text in [
        "",
        "+",
        "-",
        "MQ+",
        "MQ++CTRL_VQ",
        "bit-",
        "bit-128",
        "bit-+5",
    ] {
        assert!(list(text).is_err(), "{text:?}");
    }
}

#[test]
fn control_characters_do_not_break_the_line() {
    let error = wrong("sim:net,a\nb\t=1,\u{1b}[31m");
    assert!(!error.to_string().contains(char::is_control));
    let rendered = error.render();
    let lines: Vec<_> = rendered.lines().collect();
    assert_eq!(lines[0].find("\\u{1b}"), lines[1].find('^'));
}

#[test]
fn carets_stand_below_letters_not_bytes() {
    let error = wrong("sim:nät,é");
    assert_eq!(
        error.render(),
        "sim:nät,é\n        ^ `é` has no value: write é=...\n"
    );
}

/// Text made of what matters to the grammar, so that it gets past the first character.
fn device_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "(sim|[a-z]{0,3}):[a-z:é]{0,4}(,(features|size|mtu|mac|[a-z=é]{0,3})=?[-+:,=A-Z_a-z0-9é\u{1b}]{0,12}){0,4}",
    ]
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in device_text()) {
        let look = |error: SpecError| {
            assert!(error.text().get(error.span()).is_some(), "{error:?}");
            assert!(!error.to_string().contains('\n'));
            let lines = error.render();
            assert!(lines.lines().count() >= 2, "{lines}");
        };
        let spec = match DeviceSpec::parse(&text) {
            Ok(spec) => spec,
            Err(error) => return { look(error); Ok(()) },
        };
        prop_assert_eq!(spec.text(), &text);
        // Put together again it is the same string.
        let mut again = format!("{}:{}", spec.parent(), spec.what());
        for (key, value) in spec.pairs() {
            again += &format!(",{key}={value}");
        }
        prop_assert_eq!(&again, &text);

        let all: Vec<String> = spec.pairs().map(|(key, _)| key.to_owned()).collect();
        let mut keys = spec.keys();
        for key in &all {
            keys.take_in(key, 1..=32768u16).err().map(look);
            keys.take_size(key, 512..=1 << 30).err().map(look);
            keys.take::<Mac>(key).err().map(look);
            keys.take::<bool>(key).err().map(look);
            keys.take::<String>(key).err().map(look);
            keys.take_one_of(key, &[("on", 1)]).err().map(look);
            keys.take_features(key, DeviceType::Net, POSSIBLE, DEFAULT).err().map(look);
        }
        prop_assert_eq!(keys.finish(&[]), Ok(()));
        if !all.is_empty() {
            look(spec.keys().finish(&["mac", "mtu"]).unwrap_err());
        }
        look(spec.unknown_parent(["sim"]));
        look(spec.unknown_what(["net"]));
    }

    #[test]
    fn a_list_of_names_gives_the_set_back(word: u128) {
        let set = (Features::from_u128(word) & POSSIBLE) | bits::VERSION_1;
        let set = crate::graph::close_down(DeviceType::Net, set);
        let names: Vec<_> = set.names(DeviceType::Net).map(|name| name.to_string()).collect();
        prop_assert_eq!(list(&names.join("+")), Ok(set));
    }
}

#[test]
fn faults_that_a_parent_is_to_make_stay_with_the_string() {
    let spec = spec("sim:net");
    assert!(spec.faults().is_none());
    let with = spec.with_faults(crate::faults::Plan::new(7));
    assert_eq!(with.faults().map(|plan| plan.seed()), Some(7));
}
