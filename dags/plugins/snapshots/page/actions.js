// actions.js: what the buttons do: the DAG that each has Airflow start, and the words around it.

const RECORDS = "For the records and for whoever is on call next:";

export const ACTIONS = {
  promote: {
    dag: "snapshot_promote",
    right: "may_promote",
    label: "Promote",
    confirm: "Promote",
    icon: "upload",
    title: (version) => `Promote ${version}`,
    question: `${RECORDS} why this version, and why not by its own build?`,
    doing: (version) => `Promoting ${version}`,
    done: (version) => `Promoted ${version}.`,
  },
  rollback: {
    dag: "snapshot_rollback",
    right: "may_roll_back",
    label: "Roll back to this",
    confirm: "Roll back",
    icon: "rotate-ccw",
    title: (version) => `Roll back to ${version}`,
    question: `${RECORDS} what was wrong with the live version?`,
    doing: (version) => `Rolling back to ${version}`,
    done: (version) => `Rolled back to ${version}.`,
  },
};
