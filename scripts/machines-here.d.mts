export declare function missingForMachines(): Promise<string | undefined>
