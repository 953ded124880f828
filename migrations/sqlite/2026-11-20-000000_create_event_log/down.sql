DROP TABLE user_interactions;
DROP TABLE eclusa_schema;
