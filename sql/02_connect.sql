-- lakebed sql/02, version 2: the login may enter the database.
--
-- By hand:  psql -v login=lakebed -v database=idpserver -f 02_connect.sql

SET search_path = '';
GRANT CONNECT ON DATABASE :"database" TO :"login";
