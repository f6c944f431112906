import pg from 'pg'

/** Parses int8 as a number (`pg` returns text by default): ids and counts are far below 2^53. */
export const integersAsNumbers = {
  getTypeParser (oid: number, format?: 'text' | 'binary') {
    return oid === pg.types.builtins.INT8 ? Number : pg.types.getTypeParser(oid, format as 'text')
  }
}
