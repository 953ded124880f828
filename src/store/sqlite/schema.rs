//! The tables as diesel sees them. The migrations are the truth; this must follow them.

diesel::table! {
    user_interactions (id) {
        id -> BigInt,
        event_id -> Binary,
        timestamp -> BigInt,
        received_at -> BigInt,
        processed -> Bool,
        source -> Text,
        producer -> Text,
        event_type -> Text,
        user_id -> Nullable<Text>,
        session_id -> Nullable<Text>,
        original_id -> Nullable<Text>,
        event_data -> Text,
    }
}

diesel::table! {
    eclusa_schema (single) {
        single -> Integer,
        version -> Integer,
        oldest_compatible -> Integer,
    }
}
