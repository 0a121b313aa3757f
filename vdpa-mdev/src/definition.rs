//! What a mediated device is to be, in mdevctl's form.
//!
//! ```json
//! {
//!   "mdev_type": "mtty-2",
//!   "start": "auto",
//!   "attrs": [
//!     { "nvidia/vgpu_params": "frame_rate_limiter=0" }
//!   ]
//! }
//! ```

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};
use uuid::Uuid;
use vdpa_vfio::sysfs::excerpt;

/// When a device that is defined is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Start {
    /// When its parent comes: mdevctl's rules of udev see to that.
    Auto,
    /// When somebody asks for it.
    #[default]
    Manual,
}

/// A mediated device that is to be made, as it is kept.
///
/// # Spec
/// `mdevctl(8)`; of its format, what nobody here knows is kept, but for numbers beyond 64 bits, which lose digits, and keys
/// that are twice in one object, of which the last stays.
#[derive(Clone, PartialEq, Debug)]
pub struct Definition {
    /// Its name.
    pub uuid: Uuid,
    /// The device that makes it.
    pub parent: String,
    /// Its type.
    pub kind: String,
    /// When it is made.
    pub start: Start,
    /// Attributes below its directory in sysfs, and what is written to them, in this order.
    pub attributes: Vec<(String, String)>,
    /// All keys, in their order, as they were read.
    kept: Map<String, Value>,
}

impl Definition {
    /// A definition without attributes.
    pub fn new(uuid: Uuid, parent: &str, kind: &str, start: Start) -> Self {
        Self {
            uuid,
            parent: parent.to_owned(),
            kind: kind.to_owned(),
            start,
            attributes: Vec::new(),
            kept: Map::new(),
        }
    }

    /// Reads one.
    pub(crate) fn parsed(text: &str, uuid: Uuid, parent: &str) -> Result<Self, serde_json::Error> {
        let body: Body = serde_json::from_str(text)?;
        Ok(Self {
            uuid,
            parent: parent.to_owned(),
            kind: body.kind,
            start: body.start,
            attributes: body.attributes,
            kept: body.kept,
        })
    }

    /// As mdevctl writes it, to the byte, where nothing else was in it.
    pub(crate) fn text(&self) -> Result<String, serde_json::Error> {
        let mut all = self.kept.clone();
        all.insert(KIND.to_owned(), self.kind.clone().into());
        all.insert(START.to_owned(), self.start.name().into());
        let attributes = self.attributes.iter().map(|(name, value)| {
            let one = [(name.clone(), Value::from(value.clone()))];
            Value::Object(one.into_iter().collect())
        });
        all.insert(ATTRIBUTES.to_owned(), attributes.collect());
        serde_json::to_string_pretty(&all)
    }
}

const KIND: &str = "mdev_type";
const START: &str = "start";
const ATTRIBUTES: &str = "attrs";

impl Start {
    const ALL: [Self; 2] = [Self::Auto, Self::Manual];

    /// As it is written: `auto` or `manual`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Manual => "manual",
        }
    }
}

/// What is in a file.
struct Body {
    kind: String,
    start: Start,
    attributes: Vec<(String, String)>,
    kept: Map<String, Value>,
}

/// Read key by key, so that whatever is wrong is found where it stands.
impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with mdev_type and start")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let (mut kind, mut start, mut attributes) = (None, None, Vec::new());
        let mut kept = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            if kept.contains_key(&key) {
                return Err(A::Error::custom(format!(
                    "`{}` is there twice",
                    excerpt(&key)
                )));
            }
            let value = match key.as_str() {
                KIND => Value::from(kind.insert(map.next_value::<String>()?).clone()),
                START => Value::from(start.insert(map.next_value::<Start>()?).name()),
                ATTRIBUTES => {
                    let list: Option<Vec<Attribute>> = map.next_value()?;
                    attributes = list.into_iter().flatten().map(|one| one.0).collect();
                    // Written anew from the list.
                    Value::Null
                }
                _ => map.next_value()?,
            };
            kept.insert(key, value);
        }
        Ok(Body {
            kind: kind.ok_or_else(|| A::Error::missing_field(KIND))?,
            start: start.ok_or_else(|| A::Error::missing_field(START))?,
            attributes,
            kept,
        })
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let start = Self::ALL.into_iter().find(|start| start.name() == name);
        start.ok_or_else(|| {
            let name = excerpt(&name);
            D::Error::custom(format!("start is `{name}`: auto or manual"))
        })
    }
}

/// An object with one key.
struct Attribute((String, String));

impl<'de> Deserialize<'de> for Attribute {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(AttributeVisitor)
    }
}

struct AttributeVisitor;

impl<'de> Visitor<'de> for AttributeVisitor {
    type Value = Attribute;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with one key, whose value is a string")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attribute, A::Error> {
        let one = map.next_entry::<String, String>()?;
        let more = map.next_key::<String>()?;
        match (one, more) {
            (Some(one), None) => Ok(Attribute(one)),
            _ => Err(A::Error::custom("an attribute is an object with one key")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = Uuid::from_u128(0x83b8_f4f2_509f_382f_3c1e_e6bf_e0fa_1001);

    fn parsed(text: &str) -> Result<Definition, serde_json::Error> {
        Definition::parsed(text, UUID, "mtty")
    }

    #[test]
    fn what_is_written_is_what_mdevctl_writes() {
        let mut definition = Definition::new(UUID, "mtty", "mtty-2", Start::Auto);
        let empty = definition.text().unwrap();
        assert_eq!(
            empty,
            "{\n  \"mdev_type\": \"mtty-2\",\n  \"start\": \"auto\",\n  \"attrs\": []\n}"
        );
        definition.attributes = vec![("a/b".to_owned(), "1".to_owned())];
        let text = definition.text().unwrap();
        assert!(
            text.contains("    {\n      \"a/b\": \"1\"\n    }\n"),
            "{text}"
        );
        let again = parsed(&text).unwrap();
        assert_eq!(again.attributes, definition.attributes);
        assert_eq!((again.kind.as_str(), again.start), ("mtty-2", Start::Auto));
        assert_eq!(again.text().unwrap(), text);
    }

    #[test]
    fn what_nobody_knows_is_kept_where_it_stands() {
        let text = r#"{
  "comment": "the second one",
  "start": "manual",
  "attrs": [
    {
      "b": "2"
    },
    {
      "a": "1"
    },
    {
      "b": "3"
    }
  ],
  "tool": {
    "zeta": 1.50,
    "alpha": [
      null
    ]
  },
  "mdev_type": "mtty-1"
}"#;
        let mut definition = parsed(text).unwrap();
        // Numbers keep their value, not how they were written.
        assert_eq!(definition.text().unwrap(), text.replace("1.50", "1.5"));
        definition.start = Start::Auto;
        definition.attributes.remove(0);
        let changed = definition.text().unwrap();
        let order: Vec<_> = [
            "comment", "auto", "attrs", "tool", "zeta", "alpha", "mtty-1",
        ]
        .iter()
        .map(|word| changed.find(word).unwrap())
        .collect();
        assert!(order.is_sorted(), "{changed}");
        assert!(!changed.contains("\"2\""), "{changed}");
    }

    #[test]
    fn what_is_wrong_is_found_where_it_stands() {
        let at = |text: &str, line: usize, word: &str| {
            let error = parsed(text).unwrap_err();
            assert_eq!(error.line(), line, "{error}");
            assert!(error.to_string().contains(word), "{error}");
        };
        at("", 1, "EOF");
        at("[]", 1, "mdev_type and start");
        at("{\"mdev_type\": \"mtty-2\",\n\"start\": \"auto\"", 2, "EOF");
        at("{\"mdev_type\": \"mtty-2\"\n\n}", 3, "`start`");
        at("{\n\"start\": \"auto\"}", 2, "`mdev_type`");
        at(
            "{\n\"start\": \"sometimes\",\n\"mdev_type\": 1}",
            2,
            "auto or manual",
        );
        at("{\n\"start\": \"auto\",\n\"mdev_type\": 1}", 3, "integer");
        at(
            "{\n\"start\": \"auto\",\n\"mdev_type\": \"a\",\n\"mdev_type\": \"b\"}",
            4,
            "twice",
        );
        let attrs = |list: &str, word: &str| {
            let text =
                format!("{{\"start\": \"auto\", \"mdev_type\": \"a\",\n\"attrs\":\n{list}}}");
            at(&text, 3, word);
        };
        attrs("{}", "sequence");
        attrs("[1]", "one key");
        attrs("[{}]", "one key");
        attrs("[{\"a\": 1}]", "a string");
        attrs("[{\"a\": \"1\", \"b\": \"2\"}]", "one key");
        at(
            "{\"start\": \"auto\", \"mdev_type\": \"a\"}\nx",
            2,
            "trailing",
        );
        // Not followed to its end, which the stack does not have.
        parsed(&"[".repeat(1 << 20)).unwrap_err();
        let deep = "[".repeat(1 << 20);
        parsed(&format!("{{\"x\": {deep}")).unwrap_err();
    }

    #[test]
    fn attributes_may_be_missing() {
        for attrs in ["", ", \"attrs\": null", ", \"attrs\": []"] {
            let text = format!("{{\"start\": \"auto\", \"mdev_type\": \"a\"{attrs}}}");
            assert_eq!(parsed(&text).unwrap().attributes, []);
        }
    }
}
