drop table if exists creation_receipts;
