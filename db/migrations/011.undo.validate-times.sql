-- A constraint cannot become unvalidated; 010 drops them.
select 1;
