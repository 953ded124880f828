//! The tables as diesel sees them. The migrations are the truth; this must follow them.

diesel::table! {
    user_interactions (id) {
        id -> BigInt,
        transaction -> BigInt,
        timestamp -> Timestamptz,
        received_at -> Timestamptz,
        event_id -> Uuid,
        bucket -> Date,
        processed -> Bool,
        source -> Text,
        producer -> Text,
        event_type -> Text,
        user_id -> Nullable<Text>,
        session_id -> Nullable<Text>,
        original_id -> Nullable<Text>,
        event_data -> Jsonb,
    }
}

diesel::table! {
    eclusa_schema (single) {
        single -> Bool,
        version -> Integer,
        oldest_compatible -> Integer,
    }
}
