//! Kinds of values: what the JSON of a type looks like.

/// What stands between the elements of an array; only `box` has another one.
pub const DEFAULT_DELIMITER: u8 = b',';

/// What the JSON of a type looks like.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ValueKind {
    Boolean,
    /// `int2`, `int4`, `int8`, `oid`.
    Integer,
    Numeric,
    /// `float4`, `float8`.
    Float,
    /// `text` and its like: the types of the string category.
    Text,
    Date,
    Time,
    TimeTz,
    Timestamp,
    TimestampTz,
    Interval,
    /// `bytea`.
    Bytes,
    /// `json`, `jsonb`.
    Json,
    Array {
        element: Box<ValueKind>,
        delimiter: u8,
    },
    /// Any other type: PostgreSQL's text.
    #[default]
    Other,
}

impl ValueKind {
    /// The kind of a type that each PostgreSQL has, by its number; `None` if the catalog must be asked.
    pub fn of_builtin(oid: u32) -> Option<Self> {
        Some(match oid {
            16 => ValueKind::Boolean,
            20 | 21 | 23 | 26 => ValueKind::Integer,
            1700 => ValueKind::Numeric,
            700 | 701 => ValueKind::Float,
            18 | 19 | 25 | 1042 | 1043 => ValueKind::Text,
            1082 => ValueKind::Date,
            1083 => ValueKind::Time,
            1266 => ValueKind::TimeTz,
            1114 => ValueKind::Timestamp,
            1184 => ValueKind::TimestampTz,
            1186 => ValueKind::Interval,
            17 => ValueKind::Bytes,
            114 | 3802 => ValueKind::Json,
            _ => return None,
        })
    }

    /// Whether a text can stand in the value's place.
    pub fn is_text(&self) -> bool {
        *self == ValueKind::Text
    }
}
