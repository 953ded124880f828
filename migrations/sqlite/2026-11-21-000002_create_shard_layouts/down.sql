UPDATE eclusa_schema SET version = 3;
